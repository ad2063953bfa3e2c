"""Averaged weights against diffusers' EMAModel."""

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from cfx.training.ema import Ema


def test_it_follows_diffusers_warm_up_and_limit():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    mine = Ema(network, limit=0.9)
    theirs = EMAModel(network.parameters(), decay=0.9, use_ema_warmup=True, power=0.75)
    for step in range(40):
        with torch.no_grad():
            for p in network.parameters():
                p.add_(torch.randn_like(p))
        mine.update(network, step)
        theirs.step(network.parameters())
        for a, b in zip(mine.module.parameters(), theirs.shadow_params, strict=True):
            assert torch.allclose(a, b, atol=1e-6)
    assert mine.decay(10**6) == 0.9


def test_buffers_are_copied_and_the_copy_is_its_own():
    network = nn.BatchNorm1d(2)
    ema = Ema(network)
    network(torch.randn(8, 2))
    assert not torch.equal(ema.module.running_mean, network.running_mean)
    ema.update(network, 0)
    assert torch.equal(ema.module.running_mean, network.running_mean)
    assert not ema.module.training
    assert not any(p.requires_grad for p in ema.module.parameters())
