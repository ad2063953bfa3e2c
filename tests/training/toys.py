"""Tiny cohorts and configurations that train in seconds."""

import torch

from cfx.core import geometry
from cfx.core.cohort import Cohort
from cfx.training import check_config

NETWORKS = {
    "diffusion": {"name": "patch-unet", "patch": 2, "channels": [8, 8], "attention": [False, False], "features": 4},
    "vae": {"name": "autoencoder-kl", "channels": [8, 8], "attention": [False, False], "latent_channels": 2},
    "classifier": {"name": "cnn", "channels": [8, 8]},
    "regressor": {"name": "cnn", "channels": [8, 8]},
    "segmenter": {"name": "residual-unet", "channels": [8, 8]},
    "features": {"name": "cnn", "channels": [8, 8]},
    "duq": {"name": "cnn", "channels": [8, 8], "head": {"name": "rbf", "width": 4, "sigma": 0.3}},
    "masks": {
        "name": "mask-energy", "patch": 2, "channels": [8, 8], "attention": [False, False], "features": 4, "hidden": 8,
        "draws": 2, "scales": [4],
    },
    "latent": {"name": "unet", "channels": [8], "attention": [False]},
}  # fmt: skip
OBJECTIVES = {
    "diffusion": {"kind": "diffusion", "classes": 2, "label_dropout": 0.3},
    "vae": {"kind": "vae"},
    "classifier": {"kind": "classifier", "shift": 1, "flip": True, "noise": 0.1, "contrast": 0.1},
    "regressor": {"kind": "regressor", "targets": ["level"], "shift": 1},
    "segmenter": {"kind": "segmenter", "region": "mask", "flip": True, "shift": 1},
    "features": {"kind": "features", "dims": 8, "keys": 16, "shift": 1},
    "duq": {"kind": "duq", "rows": 3, "shift": 1, "flip": True, "noise": 0.1},
    "masks": {"kind": "masks", "region": "mask", "flip": True, "shift": 1, "noise": 0.1},
    "latent": {"kind": "latent", "autoencoder": "", "classes": 2},
}


def balls(radius, space):
    """Balls of these radii in the middle of the grid."""
    p = geometry.identity(space, radius) - (torch.tensor(space) - 1).view(1, -1, *[1] * len(space)) / 2
    return p.square().sum(1, keepdim=True).sqrt() <= radius.view(-1, *[1] * (len(space) + 1))


def toy_cohort(n=22, space=(8, 8), seed=0):
    """Class 1 is brighter than class 0; in two thirds of the rows it has `site` 1 and the larger mask.

    `level` is the mean grey value in other units.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = 0.3 * torch.rand((n, 1, *space), generator=generator) + 0.4 * y.reshape(-1, 1, *[1] * len(space)) - 0.4
    site = torch.where(torch.arange(n) % 6 < 4, y, 1 - y).float()
    mask = balls(1 + site, space)
    return Cohort(
        x=x,
        y=y,
        classes=["dark", "bright"],
        covariates={"site": site, "level": 40 + 10 * x.flatten(1).mean(1)},
        mask=mask,
    )


def toy_config(out, kind="diffusion", **more):
    """A run of 20 steps; `more` overrides top-level keys."""
    values = {
        "name": "toy", "out": str(out), "seed": 5, "network": NETWORKS[kind], "objective": OBJECTIVES[kind],
        "optimizer": {"lr": 1e-3, "warmup": 3}, "batch_size": 8, "steps": 20, "save_every": 100, "log_every": 5,
        "ema": 0.9, "validation": 0.2,
    }  # fmt: skip
    return check_config(values | more)


def make_part(batch, rows, step):
    """Some rows of a batch, at another step."""
    each = {k: v[rows] for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
    return type(batch)(seed=batch.seed, step=step, **each)
