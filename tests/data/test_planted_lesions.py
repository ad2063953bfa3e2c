"""Lesions drawn on images: where the mask says, of the value asked for, grain kept; masks land where they lie."""

import numpy as np
import pytest
import torch

from cfx.core.errors import InputError
from cfx.data import BrainConfig
from cfx.data.brain import Population
from cfx.data.ladder import rendered
from cfx.data.planted_lesions import ROUND, discs, drawn, masks_at

CONFIG = BrainConfig(n=8, seed=3, size=64)
PEOPLE = Population(CONFIG)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])  # MNI at 2 mm


@pytest.fixture(scope="module")
def cohort():
    return rendered(CONFIG)


def written(path, masks: np.ndarray, affine: np.ndarray = AFFINE):
    packed = np.packbits(masks.reshape(len(masks), -1), axis=1)
    np.savez(path, packed=packed, shape=np.array(masks.shape), affine=affine)
    return path


@pytest.mark.parametrize("name", ROUND)
def test_a_disc_has_its_size_and_its_value(cohort, name):
    marks, f = ROUND[name], PEOPLE.factors(torch.arange(CONFIG.n))
    ink = discs(marks, PEOPLE, f)
    radius = (ink.flatten(1).sum(1) * PEOPLE.grid.spacing**2 / torch.pi).sqrt()  # mm
    low, high = marks.radius
    assert ((radius > 0.9 * low) & (radius < 1.25 * high)).all()
    found = drawn(cohort, ink, marks.value)
    inside = ink > 0.98
    assert (found.x[inside & cohort.mask] - marks.value).abs().mean() < 0.12
    assert torch.equal(found.x[ink < 0.01], cohort.x[ink < 0.01])


def test_the_grain_of_the_scanner_stays():
    noisy = rendered(CONFIG, lambda people, f: f.having("noise", torch.full_like(f.severity, 6.0)[:, None]))
    everywhere = torch.ones_like(noisy.x)
    assert drawn(noisy, everywhere, 0.0).x[noisy.mask].std() > 0.05


def test_masks_of_a_file_land_where_their_affine_says(tmp_path):
    half = np.zeros((1, 91, 109, 91), bool)
    half[:, :40] = True  # x from 90 mm down to 12 mm: right in world coordinates
    ink = masks_at(written(tmp_path / "half.npz", half), PEOPLE, PEOPLE.factors(torch.arange(CONFIG.n)))
    columns = ink[..., 24:40, :].mean((0, 1, 2))
    assert columns[50:56].min() > 0.9
    assert columns[:30].max() < 0.1


def test_every_subject_has_a_patient_with_lesions_in_its_slice(tmp_path):
    masks = np.zeros((3, 91, 109, 91), bool)
    masks[2, 30:36, 50:60, 36:52] = True  # only the third has any
    ink = masks_at(written(tmp_path / "third.npz", masks), PEOPLE, PEOPLE.factors(torch.arange(CONFIG.n)))
    assert (ink > 0.5).flatten(1).any(1).all()


def test_volumes_have_them_too(tmp_path):
    masks = np.zeros((1, 91, 109, 91), bool)
    masks[0, 30:40, 50:64, 36:52] = True
    people = Population(BrainConfig(n=2, seed=3, size=24, dims=3))
    ink = masks_at(written(tmp_path / "one.npz", masks), people, people.factors(torch.arange(2)))
    assert ink.shape == (2, 1, 24, 24, 24)
    assert (ink > 0.5).flatten(1).any(1).all()


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    for name in ("other.npz", "missing.npz"):
        with pytest.raises(InputError, match="packed masks"):
            masks_at(tmp_path / name, PEOPLE, PEOPLE.factors(torch.arange(2)))
