"""Occlusion: by how much the output falls where a patch of the image is covered by the baseline.

    A(v) = mean over windows w that hold v of  f(x) - f(x with w filled by b)

Windows start at every multiple of the stride and are cut off at the border. One evaluation a window, of many images
and windows at once. With a counterfactual as the fill, what is covered stays an image of that kind.

Reference: Zeiler and Fergus (2014), "Visualizing and understanding convolutional networks".
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor

from cfx.attribution.method import Family, Found, Question, Whole
from cfx.core.errors import InputError


@dataclass(frozen=True)
class Occlusion:
    """Mean fall of the output under the windows of a voxel.

    Attributes:
        patch: Side of a window in voxels, one for all axes or one each.
        stride: Voxels between the starts of windows, likewise; by default the window's side.
    """

    patch: int | tuple[int, ...] = 6
    stride: int | tuple[int, ...] = 0

    name: ClassVar[str] = "occlusion"
    whole: ClassVar[Whole] = ""
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = False

    def explain(self, question: Question) -> Found:
        """The maps of a batch.

        Raises:
            InputError: sides or strides that are no whole numbers from 1, or of other axes than the images'.
        """
        side = _each_axis("patch", self.patch, question.space)
        step = _each_axis("stride", self.stride or side, question.space)
        windows = list(_windows(question.space, side, step))
        total = torch.zeros_like(question.x[:, :1])
        count = torch.zeros_like(total[0, 0])
        at_once = max(1, question.batch_size // len(question))
        for i in range(0, len(windows), at_once):
            some = windows[i : i + at_once]
            fall = _fall(question, some)
            for k, window in enumerate(some):
                inside = (slice(None), slice(None), *window)
                total[inside] += fall[:, k].view(-1, 1, *[1] * len(window))
                count[window] += 1
        return Found(total / count.clamp_min(1))


def _fall(question: Question, windows: Sequence[tuple[slice, ...]]) -> Tensor:
    """f(x) - f(x with a window filled), a row an image and a column a window."""
    x = question.x[:, None].repeat(1, len(windows), *[1] * (question.x.ndim - 1))
    for k, window in enumerate(windows):
        x[:, k][(slice(None), slice(None), *window)] = question.baseline[(slice(None), slice(None), *window)]
    covered = question.value(x.flatten(0, 1)).view(len(question), -1)
    return question.at_x[:, None] - covered


def _windows(space: Sequence[int], side: Sequence[int], step: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Windows in the order of their starts; the last of an axis reaches its end."""
    starts = [
        [i * s for i in range(1 + max(0, math.ceil((n - w) / s)))] for n, w, s in zip(space, side, step, strict=True)
    ]
    for corner in product(*starts):
        yield tuple(slice(a, min(a + w, n)) for a, w, n in zip(corner, side, space, strict=True))


def _each_axis(name: str, value: int | Sequence[int], space: Sequence[int]) -> tuple[int, ...]:
    """A whole number an axis."""
    found = (value,) * len(space) if isinstance(value, int) else tuple(value)
    if len(found) != len(space) or any(not isinstance(v, int) or v < 1 for v in found):
        raise InputError(f"{name}: expected a whole number from 1, or one for each of {len(space)} axes, got {value}")
    return found
