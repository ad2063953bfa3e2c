"""CIMD: its ambiguity networks learn and are used; as published they do neither."""

import pytest
import torch
from torch import nn

from cfx.models.samplers import Draw
from cfx.models.samplers.cimd import Cimd
from tests.models.networks import PATCH, randomise, small
from tests.models.samplers.laws import check
from tests.models.samplers.test_ddpm import Exact

AMBIGUITY = "modelling", "controlling"


def asked(sampler):
    """The loss of some rows, its gradients taken."""
    y = torch.randint(0, 2, (4, 2, 8, 8), dtype=torch.uint8)
    loss, scores = sampler(torch.randn(4, 1, 8, 8), y, Draw(0, torch.arange(4)))
    loss.mean().backward()
    return loss, scores


def changed(sampler, part):
    """Share of voxels of draws that change with the weights of a part."""
    x = torch.randn(16, 1, 8, 8)
    before = sampler.draw((x,), seed=0, row=torch.arange(16))
    with torch.no_grad():
        for weight in getattr(sampler, part).state_dict().values():
            weight.add_(torch.randn_like(weight))
    return float((sampler.draw((x,), seed=0, row=torch.arange(16)) != before).float().mean())


def test_both_networks_learn_and_one_draws():
    sampler = randomise(small("mask-cimd"))
    asked(sampler)
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in sampler.modelling.parameters())
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in sampler.controlling.parameters())
    assert changed(sampler, "controlling") > 0.01
    assert changed(sampler, "modelling") == 0  # it saw the mask, which a draw does not have


def test_as_published_neither_learns_or_draws():
    sampler = small("mask-cimd", as_published=True)
    names = [name for name, _ in sampler.named_parameters()]
    assert names
    assert not any(name.startswith(AMBIGUITY) for name in names)
    assert any(name.startswith(AMBIGUITY) for name in sampler.state_dict())  # a checkpoint has the same ones
    randomise(sampler)
    assert changed(sampler, "controlling") == changed(sampler, "modelling") == 0
    sampler.requires_grad_(True)  # as a training does
    asked(sampler)
    assert not any(weight.requires_grad for part in AMBIGUITY for weight in getattr(sampler, part).buffers())


def test_as_published_the_divergence_pulls_at_the_denoiser():
    sampler = randomise(small("mask-cimd", as_published=True))
    torch.manual_seed(1)
    asked(sampler)
    with_it = [p.grad.clone() for p in sampler.trunk.parameters()]
    sampler.zero_grad()
    sampler.kl_weight = 0.0
    torch.manual_seed(1)
    asked(sampler)
    assert not all(
        torch.allclose(a, p.grad, rtol=1e-6) for a, p in zip(with_it, sampler.trunk.parameters(), strict=True)
    )


@pytest.mark.parametrize("published", [False, True])
def test_the_loss_is_noise_missed_and_weighted_divergence(published):
    sampler = randomise(small("mask-cimd", as_published=published, kl_weight=0.5))
    loss, scores = asked(sampler)
    torch.testing.assert_close(loss.detach().mean(), scores["noise"] + 0.5 * scores["kl"])


def test_codes_leave_alone_what_needs_none():
    """With the true posterior, which no code can add to, draws follow the law whatever is drawn beside."""
    sampler = Cimd(2, 1, 2, PATCH, {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"})
    sampler.trunk = Exact(sampler.schedule, 2, channels=7)
    check(sampler.draw((torch.zeros(400, 1, 2, 2),), seed=0, row=torch.arange(400)), 2, 0.02)


class Watched(nn.Module):
    """Keeps what it is shown beside image and state."""

    def __init__(self):
        super().__init__()
        self.codes = []

    def forward(self, shown, timesteps):
        self.codes.append(shown[:, 1:-1])
        return shown[:, -1:]


def test_a_code_is_new_for_every_row_and_step():
    sampler = randomise(small("mask-cimd"))
    sampler.trunk = Watched()
    sampler.draw((torch.zeros(3, 1, 8, 8),), seed=0, row=torch.arange(3))
    codes = torch.stack(sampler.trunk.codes)
    assert codes.shape == (6, 3, 6, 8, 8)
    assert torch.equal(codes, codes[..., :1, :1].expand_as(codes))
    assert len(codes[..., 0, 0].flatten().unique()) == 6 * 3 * 6
