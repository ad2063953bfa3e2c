"""Shapes to learn from: ellipsoids in closed form, and simulated brains."""

import torch

from cfx.core.distance import solid
from cfx.core.geometry import identity
from cfx.data.brain import BrainConfig, Confounder, load_brain

SPACE = {2: (24, 20), 3: (16, 14, 12)}


def ellipsoids(n, dims=2, seed=0):
    """Masks whose radii vary independently, about the centre."""
    generator = torch.Generator().manual_seed(seed)
    space = SPACE[dims]
    p = identity(space, torch.zeros(1)) - (torch.tensor(space).view(1, -1, *[1] * dims) - 1) / 2
    radius = 0.3 * torch.tensor(space) * (1 + 0.12 * torch.randn(n, dims, generator=generator).clamp(-2, 2))
    return (p / radius.view(n, dims, *[1] * dims)).square().sum(1, keepdim=True) <= 1


def brains(n, start=0, q=0.9):
    """Simulated brains whose shape is planted."""
    cohort = load_brain(BrainConfig(n=n, seed=3, start=start, size=64, confounders=(Confounder(kind="shape", q=q),)))
    return solid(cohort.mask), cohort
