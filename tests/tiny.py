"""Checkpoints of tiny networks with random weights, for runs whose results do not matter."""

from pathlib import Path

import torch
from torch import nn

from cfx.core.denoiser import Denoiser
from cfx.core.schedule import Schedule
from cfx.models import build, save

SIZE = 16


def checkpoint(folder: Path, name: str, seed: int) -> str:
    """A network of this registry name with random weights everywhere, saved."""
    torch.manual_seed(seed)
    config = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1 if name == "patch-unet" else 2}
    if name == "patch-unet":
        config |= {"patch": 4, "channels": [8, 8], "attention": [False, False], "features": 4, "classes": 2}
    network: nn.Module = build(name, **config)
    for p in network.parameters():
        nn.init.normal_(p, std=0.1)
    if name == "patch-unet":
        network = Denoiser(network, Schedule.from_diffusers({"prediction_type": "v_prediction"}), 2, (1, SIZE, SIZE))
    save(folder, network, name=name, config=config, shape=(1, SIZE, SIZE), classes=["healthy", "diseased"])
    return str(folder)


def checkpoints(folder: Path) -> dict[str, str]:
    """A classifier, a generator and an oracle, by the names that configurations give them."""
    return {
        "classifier": checkpoint(folder / "classifier", "cnn", 1),
        "generator": checkpoint(folder / "generator", "patch-unet", 2),
        "oracle": checkpoint(folder / "oracle", "cnn", 3),
    }
