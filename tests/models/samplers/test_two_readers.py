"""Samplers learn that readers disagree: three of four outline a square, the fourth its right half alone."""

import pytest
import torch
from torch import nn

from cfx.models import build
from cfx.models.samplers import Draw

COSINE = {"num_train_timesteps": 30, "beta_schedule": "squaredcos_cap_v2"}
TRUNK = {"name": "patch-unet", "patch": 2, "channels": (16,), "attention": (False,), "features": 8}
SETTINGS = {
    "mask-ddpm": {"network": TRUNK, "schedule": COSINE},
    "mask-categorical": {"network": TRUNK, "schedule": COSINE},
    "mask-prob-unet": {"network": TRUNK, "features": 8},
    "mask-ssn": {"network": TRUNK, "features": 8},
}
STEPS, BATCH, RATE = 150, 32, 5e-3


def problem(n: int, seed: int):
    """Bright squares somewhere, and their readings."""
    p, places = torch.arange(8), torch.randint(0, 5, (n, 2, 1), generator=torch.Generator().manual_seed(seed))
    inside = (p >= places) & (p < places + 4)
    whole = inside[:, 0, :, None] & inside[:, 1, None, :]
    half = whole & (p >= places[:, 1] + 2)[:, None, :]
    return 2.0 * whole[:, None] - 1, torch.stack([half, whole, whole, whole], 1).to(torch.uint8)


def learn(sampler, x, readings):
    """A short training."""
    optimizer = torch.optim.AdamW(sampler.parameters(), betas=(0.9, 0.99), weight_decay=0)
    for k, slot in enumerate(torch.arange(STEPS * BATCH).split(BATCH)):
        optimizer.param_groups[0]["lr"] = RATE * min(1, (k + 1) / 20, (STEPS - k) / 60)
        sampler(x[slot], readings[slot], Draw(0, slot))[0].mean().backward()
        nn.utils.clip_grad_norm_(sampler.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_draws_are_one_readers_or_the_others_and_do_not_collapse(name):
    sampler = build(name, spatial_dims=2, in_channels=1, **SETTINGS[name])
    learn(sampler, *problem(STEPS * BATCH, 0))
    x, readings = problem(256, 1)
    with torch.no_grad():
        drawn = sampler.eval().draw(sampler.encode(x), seed=0, row=torch.arange(256))
    missed = torch.stack([(drawn != readings[:, r]).flatten(1).float().mean(1) for r in (0, 1)], 1)
    near = missed.amin(1) < 0.1  # 6 of 64 voxels; one reader's mask is 8 voxels from the other's
    halves = missed.argmin(1)[near] == 0
    assert float(near.float().mean()) > 0.6
    assert 0.01 < float(halves.float().mean()) < 0.5
