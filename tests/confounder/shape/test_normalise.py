"""After normalisation the support says nothing, bit for bit; the deformation says where the shape went."""

import inspect

import pytest
import torch

from cfx.confounder.shape.normalise import BACKGROUND, Normaliser, mean_shape
from cfx.core.distance import signed_distance, solid
from cfx.core.errors import InputError
from cfx.core.scores import dice
from cfx.data.brain import BrainConfig, Confounder, load_brain

N = 16


@pytest.fixture(scope="module")
def cohort():
    return load_brain(BrainConfig(n=N, confounders=(Confounder(kind="shape", q=0.5), Confounder(kind="tag", q=0.5))))


@pytest.fixture(scope="module")
def normaliser(cohort):
    return Normaliser(mean_shape(solid(cohort.mask)))


@pytest.fixture(scope="module")
def done(cohort, normaliser):
    return normaliser(cohort.x, cohort.mask)


def test_the_support_is_the_same_in_every_image(cohort, normaliser, done):
    before = solid(cohort.mask)
    assert dice(before[1:], before[:-1]).min() < 0.95
    assert torch.equal(done.x > BACKGROUND, normaliser.support.expand(N, 1, 64, 64))
    assert torch.equal(done.mask, normaliser.support.expand(N, 1, 64, 64))
    assert done.transfer.ok.all()


@pytest.mark.parametrize("erosion", [0, 1, 3])
def test_the_support_is_the_eroded_template(normaliser, erosion):
    support = Normaliser(normaliser.template, erosion).support
    assert torch.equal(support, signed_distance(normaliser.template) <= -erosion)
    assert (support & ~normaliser.template).sum() == 0


def test_images_stay_in_range_and_the_inside_is_the_brain(cohort, done):
    assert done.x.abs().max() <= 1
    middle = done.x[:, :, 24:40, 24:40].flatten(1).mean(1)
    before = cohort.x[:, :, 24:40, 24:40].flatten(1).mean(1)
    assert torch.corrcoef(torch.stack([middle, before]))[0, 1] > 0.5


def test_the_log_jacobian_knows_the_size_that_was(cohort, done):
    """Its exponential, summed over the template, is the volume of the brain before, up to the rim."""
    whole = Normaliser(done.transfer.mask[:1], 0)(cohort.x, cohort.mask)
    volume = (whole.log_jacobian.exp() * whole.mask).flatten(1).sum(1)
    assert torch.allclose(volume, solid(cohort.mask).flatten(1).sum(1).float(), rtol=0.03)
    assert (done.log_jacobian * ~done.mask == 0).all()


def test_a_cohort_keeps_its_rows_and_takes_the_warp_everywhere(cohort, normaliser, done):
    out = normaliser.cohort(cohort)
    assert out.ids == cohort.ids
    assert torch.equal(out.y, cohort.y)
    assert torch.allclose(out.x, done.x, atol=1e-4)
    assert torch.equal(out.mask, done.mask)
    assert (out.covariates["normalised_ok"] == 1).all()
    assert (out.lesion & ~out.mask).sum() == 0
    rows = cohort.lesion.flatten(1).sum(1) > 20
    assert rows.any()
    assert out.lesion[rows].flatten(1).any(1).all()
    # the counterfactual differs from its image where the disease is, as before
    assert torch.equal(out.x_true > BACKGROUND, out.mask)
    gap, was = ((c.x_true - c.x).abs().flatten(1).mean(1) for c in (out, cohort))
    assert torch.corrcoef(torch.stack([gap, was]))[0, 1] > 0.8


def test_volumes_too():
    cohort = load_brain(BrainConfig(n=2, size=32, dims=3))
    n = Normaliser(mean_shape(solid(cohort.mask)))
    out = n.cohort(cohort)
    assert torch.equal(out.x > BACKGROUND, n.support.expand(2, 1, 32, 32, 32))


def test_the_mean_of_balls_is_a_ball():
    p = torch.arange(41) - 20
    rho = (p[:, None] ** 2 + p[None] ** 2).sqrt()
    masks = torch.stack([rho <= r for r in (9.0, 11.0, 13.0)])[:, None]
    assert dice(mean_shape(masks), (rho <= 11)[None, None]) > 0.98


def test_what_does_not_fit_is_refused_by_name(cohort, normaliser):
    with pytest.raises(InputError, match="erosion: expected something left of the template"):
        Normaliser(normaliser.template, 40)
    with pytest.raises(InputError, match="template, erosion: expected one mask and 0 or more, got 1, -1"):
        Normaliser(normaliser.template, -1)
    with pytest.raises(InputError, match="template: expected an inside and an outside"):
        Normaliser(torch.zeros_like(normaliser.template))
    from dataclasses import replace

    with pytest.raises(InputError, match="cohort: expected masks, got none"):
        normaliser.cohort(replace(cohort, mask=None))
    with pytest.raises(InputError, match="mask: expected a boolean"):
        inspect.unwrap(solid)(cohort.x)
