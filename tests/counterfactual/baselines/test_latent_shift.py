"""Latent shift: exact where decoder and classifier are linear; what it costs; what it refuses."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from cfx.core.errors import InputError
from cfx.counterfactual.baselines.latent_shift import LatentShift
from tests.counterfactual.baselines.problems import part, problem, spent
from tests.counterfactual.toys import Bounded, Cliff, Linear

SPACES = [(8, 8), (8, 8, 8)]
FREE = LatentShift(bound=1e6)


class Halves:
    """A linear autoencoder: means over two voxels a side, repeated. Counts passes and back-propagations."""

    def __init__(self, noise=0.0):
        self.rows = self.backward = 0
        self.noise = noise

    def encode(self, x):
        self.rows += len(x)
        z = (F.avg_pool2d if x.ndim == 4 else F.avg_pool3d)(x, 2)
        return z, torch.zeros_like(z)

    def decode(self, z):
        self.rows += len(z)
        if z.requires_grad:
            z.register_hook(lambda g: setattr(self, "backward", self.backward + len(g)))
        return F.interpolate(z, scale_factor=2.0, mode="nearest") + self.noise


class Detached(Halves):
    def decode(self, z):
        return super().decode(z).detach()


class Far(Halves):
    """Its reconstructions are at the mean of class 1 already."""

    def decode(self, z):
        return super().decode(z) + Linear(tuple(2 * n for n in z.shape[2:])).middle + 1.0


class Tears(Halves):
    """Latents that moved far decode to NaN."""

    def decode(self, z):
        image = super().decode(z)
        return torch.where((z.flatten(1).abs().amax(1) > 0.9).view(-1, 1, 1, 1), torch.nan, image)


def with_vae(space=(8, 8), vae=None, **more):
    return replace(problem(space, **more), generator=vae or Halves())


def reconstruction(p):
    return Halves().decode(Halves().encode(p.x)[0])


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("margin", [1e-3, 1.0, 4.0])
def test_on_linear_parts_the_first_step_that_convinces_is_known(space, margin):
    p = with_vae(space, margin=margin)
    found = FREE.propose(p)
    assert (p.judge.margin(found.image, p.target) >= margin - 1e-5).all()
    # dy/dz sums the weights of the voxels that an entry is repeated to
    weight = 8 * Linear(space).weight[None]
    g = (F.avg_pool2d if len(space) == 2 else F.avg_pool3d)(weight, 2) * 2 ** len(space)
    direction = g / g.square().mean().sqrt()
    gain = (g * direction).sum()
    least = (margin - p.judge.margin(reconstruction(p), p.target)) / gain
    lengths = [0.0]
    while len(lengths) <= FREE.steps:
        lengths.append(1.1 * lengths[-1] + 0.1)
    first = torch.tensor([next(v for v in lengths if v >= float(least[k]) - 1e-6) for k in range(4)])
    torch.testing.assert_close(found.strength, first, atol=1e-5, rtol=0)
    assert ((found.smaller < margin) | (found.strength == 0)).all()
    sign = (2 * p.target - 1).view(4, *[1] * (len(space) + 1))
    moved = found.strength.view(4, *[1] * (len(space) + 1)) * sign * Halves().decode(direction)
    torch.testing.assert_close(found.image, (reconstruction(p) + moved).clamp(-1, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("bound", [0.05, 0.5])
def test_a_row_ends_at_the_bound(bound):
    """The last image may be beyond it, the one before is not."""
    p = with_vae(margin=100.0)
    found = LatentShift(bound=bound).propose(p)
    start = reconstruction(p)
    moved = (found.image - start).abs().flatten(1).sum(1) / start.abs().flatten(1).sum(1)
    before = moved * (found.strength - 0.1) / 1.1 / found.strength
    assert (moved > bound).all()
    assert (before <= bound + 1e-5).all()
    assert (p.judge.margin(found.image, p.target) < 100).all()


@pytest.mark.parametrize("space", SPACES)
def test_counts_are_exact(space):
    p = with_vae(space)
    FREE.propose(p)
    cost = spent(p)
    trials = [n - 2 for n in cost["unet_forward"]]  # one encoder pass, one decoder pass for the gradient
    assert min(trials) >= 1
    assert cost["unet_backward"] == [1] * 4
    assert p.generator.backward == 4
    assert cost["classifier_backward"] == [1] * 4
    assert cost["classifier"] == [2 + n for n in trials]  # gradient, reconstruction, trials


@pytest.mark.parametrize("space", SPACES)
def test_the_batch_does_not_matter(space):
    whole = with_vae(space)
    found = FREE.propose(whole)
    for rows in ([2], [3, 0]):
        alone = part(whole, rows)
        got = FREE.propose(alone)
        torch.testing.assert_close(got.image, found.image[rows], atol=1e-5, rtol=0)
        torch.testing.assert_close(got.strength, found.strength[rows], atol=1e-5, rtol=0)
        assert torch.equal(alone.meter.unet_forward, whole.meter.unet_forward[rows])


def test_what_may_not_change_does_not():
    allowed = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    allowed[..., :5] = True
    p = with_vae(allowed=allowed)
    found = FREE.propose(p)
    assert torch.equal(found.image[..., 5:], p.x[..., 5:])
    assert (p.judge.margin(found.image, p.target) >= 1 - 1e-5).all()


def test_a_reconstruction_that_convinces_is_the_answer():
    p = with_vae(vae=Far())
    found = FREE.propose(p)
    there = p.target == 1
    assert torch.equal(found.strength == 0, there)
    assert torch.equal(p.meter.unet_forward == 2, there)
    assert torch.equal(found.image[there], Far().decode(Far().encode(p.x)[0])[there].clamp(-1, 1))


def test_out_of_reach_the_closest_is_returned():
    p = with_vae(classifier=Bounded((8, 8)), margin=3.0)
    found = LatentShift(steps=2, bound=1e6).propose(p)
    assert found.finite.all()
    assert spent(p)["unet_forward"] == [2 + 2] * 4
    assert (p.judge.margin(found.image, p.target) > p.before).all()


def test_a_row_ends_where_the_margin_stops_rising():
    p = with_vae(classifier=Bounded((8, 8)), margin=3.0)  # its logits have a ceiling
    FREE.propose(p)
    assert max(spent(p)["unet_forward"]) < 2 + FREE.steps


def test_nan_is_named():
    p = with_vae(classifier=Cliff((8, 8)))
    found = FREE.propose(p)
    assert not found.finite.any()
    assert found.image.isfinite().all()
    assert spent(p)["unet_forward"] == [3] * 4  # the first trial was the last
    p = with_vae(vae=Tears(), margin=100.0)
    found = FREE.propose(p)
    assert not found.finite.any()
    assert found.image.isfinite().all()


def test_refuses_what_it_cannot_use():
    with pytest.raises(InputError, match="expected an autoencoder, got Counted"):
        FREE.propose(problem())
    with pytest.raises(InputError, match="expected a decoder with a gradient to its latent"):
        FREE.propose(with_vae(vae=Detached()))
