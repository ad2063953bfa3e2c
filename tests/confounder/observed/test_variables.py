"""What is read off the images: known answers in two and three dimensions."""

import math

import pytest
import torch

from cfx.confounder.observed.variables import SHAPE_SCORES, coarse, image_variables
from cfx.core.cohort import Cohort
from cfx.core.geometry import identity, smooth
from cfx.core.random import normal


def ellipsoids(n, space, radii, *, spacing=1.0, noise=0.02, seed=0):
    """Bright bodies on black, with noise inside; radii in voxels `(n, d)`."""
    p = identity(space, torch.zeros(1)) - (torch.tensor(space).view(1, -1, *[1] * len(space)) - 1) / 2
    mask = ((p / radii.view(n, -1, *[1] * len(space))).square().sum(1, keepdim=True)) <= 1
    grain = noise * normal((1, *space), seed=seed, row=torch.arange(n), stream=0)
    return Cohort(
        x=torch.where(mask, 0.2 + grain, -1.0), mask=mask, spacing=torch.full((n, len(space)), float(spacing))
    )


@pytest.mark.parametrize("space", [(96, 80), (40, 48, 44)])
def test_volume_extent_intensity_and_noise_of_ellipsoids(space):
    d = len(space)
    radii = torch.tensor([[14.0, 18.0, 16.0][:d], [16.0, 16.0, 16.0][:d]])
    found = image_variables(ellipsoids(2, space, radii, spacing=2.0))
    ball = {2: math.pi, 3: 4 / 3 * math.pi}[d]
    torch.testing.assert_close(found["volume"], ball * radii.prod(1).double() * 2**d, rtol=0.02, atol=0)
    for i in range(d):
        expected = radii[:, i].double() / radii.double().log().mean(1).exp()
        torch.testing.assert_close(found[f"extent_{i}"], expected, rtol=0.01, atol=0)
    assert found["shear_01"].abs().max() < 1e-6
    torch.testing.assert_close(found["mean"], torch.full((2,), 0.2).double(), rtol=0, atol=0.005)
    torch.testing.assert_close(found["sd"], torch.full((2,), 0.02).double(), rtol=0.1, atol=0)
    torch.testing.assert_close(found["noise"], torch.full((2,), 0.02).double(), rtol=0.12, atol=0)
    torch.testing.assert_close(found["sharpness"], torch.ones(2).double(), rtol=0.1, atol=0)  # white
    torch.testing.assert_close(found["outside_mean"], torch.full((2,), -1.0).double())
    assert (found["spacing_0"] == 2).all()


def test_noise_does_not_see_a_plane_and_sharpness_falls_with_blur():
    p = identity((64, 64), torch.zeros(1)) / 64
    plane = 0.5 * p[:, :1] - 0.3 * p[:, 1:]
    grain = 0.05 * normal((1, 64, 64), seed=1, row=torch.arange(1), stream=0)
    x = torch.cat([plane, plane + grain, grain, smooth(grain, 0.7), smooth(grain, 1.5)])
    found = image_variables(Cohort(x=x))
    assert found["noise"][0] < 1e-6
    assert float(found["noise"][1]) == pytest.approx(0.05, rel=0.05)
    assert float(found["sharpness"][2]) == pytest.approx(1.0, rel=0.05)
    assert found["sharpness"][2] > 1.5 * found["sharpness"][3] > 3 * found["sharpness"][4]
    assert "volume" not in found
    assert "outside_mean" not in found


def test_sheared_masks_have_the_correlation_of_their_coordinates():
    p = identity((64, 64), torch.zeros(1)) - 31.5
    mask = ((p[:, :1] - 0.5 * p[:, 1:]).square() + p[:, 1:].square()) <= 20**2  # a = 0.5 b + u
    found = image_variables(
        Cohort(x=torch.where(mask, 0.0, -1.0).expand(2, -1, -1, -1), mask=mask.expand(2, -1, -1, -1))
    )
    torch.testing.assert_close(found["shear_01"], torch.full((2,), 0.5 / 1.25**0.5).double(), rtol=0, atol=0.01)


def test_the_first_shape_score_is_the_mode_that_varies():
    t = torch.linspace(-1, 1, 21)
    radii = torch.stack([20 + 5 * t, 20 - 5 * t], 1)
    found = image_variables(ellipsoids(21, (64, 64), radii))
    r = torch.corrcoef(torch.stack([found["shape_1"], t.double()]))[0, 1].abs()
    assert r > 0.99
    assert float(found["shape_1"].square().mean()) == pytest.approx(1.0, rel=1e-6)
    assert f"shape_{SHAPE_SCORES}" in found


def test_equal_masks_have_no_shape_scores():
    found = image_variables(ellipsoids(5, (32, 32), torch.full((5, 2), 9.0)))
    assert not any(name.startswith("shape_") for name in found)


def test_rows_are_what_they_are_in_any_company(monkeypatch):
    cohort = ellipsoids(7, (32, 32), torch.full((7, 2), 9.0))
    whole = image_variables(cohort)
    monkeypatch.setattr("cfx.confounder.observed.variables._VOXELS", 2 * 32 * 32)
    parts = image_variables(cohort)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value)


def test_a_mask_too_thin_for_the_noise_has_none():
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 10:12, 5:25] = True
    found = image_variables(Cohort(x=torch.zeros(1, 1, 32, 32), mask=mask))
    assert found["noise"].isnan().all()
    assert found["volume"].tolist() == [40.0]


def test_channels_have_their_own_intensities():
    x = torch.cat([torch.zeros(3, 1, 16, 16), torch.full((3, 1, 16, 16), 0.5)], 1)
    found = image_variables(Cohort(x=x))
    assert (found["mean_0"] == 0).all()
    assert (found["mean_1"] == 0.5).all()


def test_coarse_images_are_averages():
    x = torch.arange(64.0).view(1, 1, 8, 8)
    assert coarse(x, 4)[0, 0, 0, 0] == x[0, 0, :2, :2].mean()
    assert torch.equal(coarse(x, 20), x)
