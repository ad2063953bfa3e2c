"""Where a decision is sensitive: gradients averaged over noise and over networks, as maps to cluster.

Reference: Smilkov et al. (2017), "SmoothGrad: removing noise by adding noise".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.confounder.intervention import judges
from cfx.core.gradients import smoothed
from cfx.core.random import normal
from cfx.core.rows import Rows, about
from cfx.models.judge import Classifier
from cfx.models.running import at_rest
from cfx.runtime.shares import shared

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Sensitivity(Rows):
    """Where the decision on every image is sensitive.

    Attributes:
        row: Number of the image.
        map: Averaged gradient, `(n, 1, *space)`.
    """

    row: Int[Tensor, " n"]
    map: Float[Tensor, "n 1 *space"] = field(metadata=about(array="sensitivity"))


def smooth_gradients(
    classifiers: Sequence[Classifier],
    x: Float[Tensor, "n c *space"],
    y: Int[Tensor, " n"],
    *,
    copies: int = 4,
    spread: float = 0.1,
    batch_size: int = 64,
    seed: int = 0,
    accelerator: "Accelerator | None" = None,
) -> Sensitivity:
    """|d margin(y) / d x|, averaged over noisy copies and networks, summed over channels.

    Args:
        classifiers: Networks from images to logits.
        x: Images in [-1, 1].
        y: Class whose evidence is looked for, one a row: its logit minus the largest other (with two, the log-odds).
        copies: Noisy copies of every image.
        spread: Standard deviation of their noise.
        batch_size: Images worked on together, copies included; the result does not depend on it.
        seed: Seed of the noise.
        accelerator: Share the batches among its processes; every process returns all rows.

    Raises:
        InputError: no network, or one whose logits have no gradient.
        CfxError: another process failed.
    """

    def work(rows: Tensor) -> Sensitivity:
        noise = [normal(x.shape[1:], seed=seed, row=rows, stream=j) for j in range(copies)]
        toward = y[rows].repeat_interleave(copies)
        g = smoothed(
            lambda v: torch.stack([f.gradient(v, toward) for f in asked]).sum(0),
            x[rows],
            spread * torch.stack(noise, 1),
        )
        return Sensitivity(rows, (g / len(asked)).abs().sum(1, keepdim=True))

    asked = judges(classifiers)
    with at_rest(*classifiers):
        return shared(work, Sensitivity, len(x), max(1, batch_size // copies), accelerator)
