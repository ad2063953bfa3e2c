"""The evidence bound of the Probabilistic U-Net, term by term, and draws from its prior."""

import pytest
import torch

from cfx.models.samplers import Draw
from cfx.models.samplers.conditioned import likeliest
from tests.models.networks import randomise, small


@pytest.mark.parametrize("classes", [2, 3])
def test_the_loss_is_the_bound_a_voxel(classes):
    sampler = randomise(small("mask-prob-unet", classes=classes))
    x, y = torch.randn(4, 1, 8, 8), torch.randint(0, classes, (4, 3, 8, 8), dtype=torch.uint8)
    losses = []
    for sampler.beta in (0.0, 1.0, 2.0):
        loss, scores = sampler(x, y, Draw(0, torch.arange(4)))
        losses.append(loss.mean() * 64)
    torch.testing.assert_close(losses[0].detach(), scores["reconstruction"])
    torch.testing.assert_close((losses[1] - losses[0]).detach(), scores["kl"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close((losses[2] - losses[0]).detach(), 2 * scores["kl"], rtol=1e-3, atol=1e-3)
    assert float(scores["kl"]) > 0


def test_draws_come_from_the_prior():
    sampler = randomise(small("mask-prob-unet"))
    x = torch.randn(1, 1, 8, 8)
    h, mean, log_std = (v.expand(64, *v.shape[1:]) for v in sampler.encode(x))
    with torch.no_grad():
        sampler.head[-1].bias -= sampler.logits(h, mean).mean()  # so that both classes occur
    sure = sampler.draw((h, mean, log_std - 50), seed=0, row=torch.arange(64))
    assert torch.equal(sure, likeliest(sampler.logits(h, mean)))
    apart = sampler.draw((h, mean, log_std), seed=0, row=torch.arange(64))
    assert len(apart.flatten(1).unique(dim=0)) > 10


def test_a_latent_has_a_place():
    """Of two codes each may give the larger mask somewhere, so that draws need not contain one another."""
    sampler = randomise(small("mask-prob-unet"))
    with torch.no_grad():
        logits = sampler.logits(torch.zeros(32, 4, 16, 16), torch.randn(32, 6))  # an image that is the same everywhere
    larger = (logits[:16] > logits[16:]).flatten(1).float().mean(1)
    assert float(((larger > 0.1) & (larger < 0.9)).float().mean()) > 0.5
