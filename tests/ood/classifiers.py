"""Classifiers and features for the tests of detectors that ask them."""

import torch
from torch import Tensor, nn

from cfx.core.cohort import Cohort
from cfx.models import build
from tests.ood.detectors import images


def cnn(dims: int = 2, seed: int = 0, classes: int = 3, **more: object) -> nn.Module:
    """A small classifier with weights that matter, in training mode as a user may hand it in."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {"spatial_dims": dims, "in_channels": 1, "out_channels": classes, "channels": (6, 10)}
        net = build("cnn", **sizes, **more)
        for p in net.parameters():
            nn.init.normal_(p, std=0.3)
        for m in net.modules():
            if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)
    return net.train()


def labelled(n: int, seed: int = 0, space: tuple[int, ...] = (8, 8), classes: int = 3) -> Cohort:
    """Images of independent normal pixels whose class adds to their mean."""
    y = torch.arange(n) % classes
    x = (images(n, seed, space) + 0.2 * (y - 1).view(-1, 1, *[1] * len(space))).clamp(-1, 1)
    return Cohort(x, y=y, ids=tuple(f"{seed}-{i}" for i in range(n)))


def flat(x: Tensor) -> Tensor:
    """The pixels of an image as its features."""
    return x.flatten(1)


class Table:
    """Features or logits that are given: image i, whose pixels are all i / n, has row i."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __call__(self, x: Tensor) -> Tensor:
        return self.values.to(x.device)[(x.flatten(1)[:, 0] * len(self.values)).round().long()]

    def cohort(self, rows: slice = slice(None), y: Tensor | None = None) -> Cohort:
        """The images of some rows."""
        n = len(self.values)
        x = (torch.arange(n) / n)[rows]
        ids = tuple(str(i) for i in range(n)[rows])
        return Cohort(x.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone(), y=y, ids=ids)
