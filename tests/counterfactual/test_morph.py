"""The deformation that is put into an image is the one that is found, and half of it is half a deformation."""

import pytest
import torch

from cfx.core import geometry
from cfx.counterfactual import explain
from cfx.counterfactual.morph import Morph
from tests.counterfactual.toys import ClassGaussian, Linear, class_means, cohort


def disc(radius, n=24):
    axis = torch.arange(n) - (n - 1) / 2
    distance = (axis[:, None] ** 2 + axis[None] ** 2).sqrt()
    return torch.sigmoid((radius - distance) * 2)[None, None] - 0.5


def test_a_growing_disc_is_a_deformation_not_a_residual():
    small, large = disc(5.0), disc(7.0)
    v, r = Morph(iterations=60).decompose(small, large)
    warped = geometry.warp(small, geometry.exponential(v))
    torch.testing.assert_close(warped + r, large, atol=1e-6, rtol=0)
    assert r.square().mean() < 0.1 * (large - small).square().mean()
    half = geometry.warp(small, geometry.exponential(v / 2))
    assert (half - disc(6.0)).square().mean() < 0.25 * (large - small).square().mean()
    assert (geometry.jacobian_determinant(geometry.exponential(v)) > 0).all()


def test_a_new_spot_is_a_residual():
    plain = torch.zeros(1, 1, 24, 24)
    spot = plain.clone()
    spot[..., 10:13, 10:13] = 0.8
    v, r = Morph().decompose(plain, spot)
    assert torch.equal(v, torch.zeros_like(v))
    assert torch.equal(r, spot)


@pytest.mark.parametrize("space", [(8, 8), (8, 8, 8)])
@pytest.mark.parametrize("depth", ["typical", "boundary"])
def test_morph_convinces_the_classifier(space, depth):
    means = class_means(space)
    data = cohort(means, 6)
    result = explain(data, Linear(space), ClassGaussian(means), 1 - data.y, depth=depth, method="morph")
    assert result.validity == 1.0
    assert torch.equal(result.x_cf[~result.edited.expand_as(result.x)], result.x[~result.edited.expand_as(result.x)])
    assert result.method == "morph"
    guide = Morph().guide
    steps = guide.steps if depth == "typical" else guide.boundary_steps
    if depth == "boundary":
        assert result.certified.all()
    assert int(result.nfe_unet_forward.max()) == 3 * steps  # abduction, replay from a known state, review


def test_rows_do_not_depend_on_the_batch():
    means = class_means((8, 8))
    data = cohort(means, 5)
    runs = [
        explain(data, Linear((8, 8)), ClassGaussian(means), 1 - data.y, method="morph", batch_size=n).x_cf
        for n in (1, 5)
    ]
    torch.testing.assert_close(runs[0], runs[1], atol=1e-5, rtol=0)
