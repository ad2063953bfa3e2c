"""What a method of attribution is given, and what it gives back: the one signature all of them have.

A method asks the classifier through a `Question`, which counts every evaluation for the row it was made for. A map
depends on its image, target and baseline alone, whatever stands beside it in a batch. Whether the map is complete is
not its business: `cfx.attribution.attribute` measures that for all methods alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.meter import Meter
from cfx.models.judge import Judge, margin_of

Output = Literal["logit", "margin"]
"""What is divided up: the logit of the target, or its margin over the best other class."""
Whole = Literal["change", "value", ""]
"""What a map promises to sum to: f(x) - f(baseline), f(x), or nothing."""
Family = Literal["classic", "engine", "control"]
"""Whether a method is of the literature, needs a counterfactual, or knows nothing of the classifier."""


class Question:
    """One batch of images and the classifier, every evaluation counted.

    Attributes:
        x: Images `(b, c, *space)`, where it is worked.
        target: Class of each that is asked about.
        baseline: What each is compared with.
        judge: The classifier.
        spent: Evaluations of each row so far.
        row: Counter of every image, for noise.
        seed: Seed of all noise.
        batch_size: Most images shown together.
    """

    def __init__(
        self,
        x: Float[Tensor, "b c *space"],
        target: Int[Tensor, " b"],
        baseline: Float[Tensor, "b c *space"],
        judge: Judge,
        row: Int[Tensor, " b"],
        *,
        output: Output = "logit",
        binary: bool = False,
        seed: int = 0,
        batch_size: int = 32,
    ) -> None:
        """Start with nothing spent.

        Args:
            x: Images.
            target: Classes.
            baseline: Baselines.
            judge: The classifier.
            row: Counters.
            output: What is divided up.
            binary: Whether the classifier has one logit, whose sign is that of the target then.
            seed: Seed of all noise.
            batch_size: Most images shown together.
        """
        self.x, self.target, self.baseline, self.judge, self.row = x, target, baseline, judge, row
        self.seed, self.batch_size, self.spent = seed, batch_size, Meter(len(x), x.device)
        self.margin = output == "margin" or binary

    def __len__(self) -> int:
        """Number of images."""
        return len(self.x)

    @property
    def space(self) -> tuple[int, ...]:
        """Spatial shape of the images."""
        return tuple(self.x.shape[2:])

    @cached_property
    def at_x(self) -> Float[Tensor, " b"]:
        """Outputs of the images."""
        return self.value(self.x)

    @cached_property
    def at_baseline(self) -> Float[Tensor, " b"]:
        """Outputs of the baselines."""
        return self.value(self.baseline)

    def rows(self, m: int) -> Int[Tensor, " m"]:
        """Row of each of `m` images that are several copies of every image, those of the first one first."""
        return torch.arange(len(self), device=self.x.device).repeat_interleave(m // len(self))

    def score(self, logits: Float[Tensor, "m k"], rows: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The output that is asked about, differentiably."""
        target = self.target[rows]
        return margin_of(logits, target) if self.margin else logits.gather(1, target[:, None])[:, 0]

    def value(self, images: Float[Tensor, "m c *space"], rows: Int[Tensor, " m"] | None = None) -> Float[Tensor, " m"]:
        """Outputs of images of these rows; by default of as many copies of every row as there are."""
        return self._in_parts(self._value, images, rows)

    def gradient(
        self, images: Float[Tensor, "m c *space"], rows: Int[Tensor, " m"] | None = None
    ) -> Float[Tensor, "m c *space"]:
        """Gradients of these outputs; errors as `Judge.slope`."""
        return self._in_parts(self._gradient, images, rows)

    def both(self, images: Float[Tensor, "m c *space"], rows: Int[Tensor, " m"]) -> tuple[Tensor, Tensor]:
        """Outputs of images of these rows and their gradients; errors as `Judge.slope`."""
        kept: list[Tensor] = []

        def ask(images: Tensor, rows: Tensor) -> Tensor:
            return self._gradient(images, rows, kept)

        slopes = self._in_parts(ask, images, rows)
        return torch.cat(kept), slopes

    def traced(self, images: Float[Tensor, "m c *space"], rows: Int[Tensor, " m"]) -> Float[Tensor, ""]:
        """Sum of the outputs of these images with their graph, for gradients inside the network; one batch.

        Raises:
            InputError: the output does not depend on the image differentiably.
        """
        for kind in ("classifier", "classifier_backward"):
            self.spent.count(kind, rows)
        total = self.score(self.judge.logits(images), rows).sum()
        if not total.requires_grad:
            raise InputError(f"{self.judge.name}: expected logits with a gradient to the image, got detached ones")
        return total

    def _value(self, images: Tensor, rows: Tensor) -> Tensor:
        self.spent.count("classifier", rows)
        with torch.no_grad():
            return self.score(self.judge.logits(images), rows)

    def _gradient(self, images: Tensor, rows: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        for kind in ("classifier", "classifier_backward"):
            self.spent.count(kind, rows)

        def score(logits: Tensor) -> Tensor:
            found = self.score(logits, rows)
            if kept is not None:
                kept.append(found.detach())
            return found

        return self.judge.slope(images, score)

    def _in_parts(self, ask: Callable[[Tensor, Tensor], Tensor], images: Tensor, rows: Tensor | None) -> Tensor:
        rows = self.rows(len(images)) if rows is None else rows
        parts = zip(images.split(self.batch_size), rows.split(self.batch_size), strict=True)
        return torch.cat([ask(*part) for part in parts])


@dataclass(frozen=True)
class Found:
    """What a method found of a batch.

    Attributes:
        map: One channel, or those of the images.
        bias: What goes to biases and to no voxel; None where nothing does.
        foreign: Names of operations of the network that the method has no rule for.
        refused: Why there is no map; empty where there is one.
    """

    map: Float[Tensor, "b m *space"]
    bias: Float[Tensor, " b"] | None = None
    foreign: Sequence[str] = ()
    refused: str = ""


@runtime_checkable
class Method(Protocol):
    """One way to say where a classifier looks; a frozen dataclass of its settings.

    Attributes:
        name: What it is called.
        whole: What its map promises to sum to.
        family: Of the literature, from a counterfactual, or a control.
        gradient: Whether it needs gradients of the classifier.
    """

    name: ClassVar[str]
    whole: ClassVar[Whole]
    family: ClassVar[Family]
    gradient: ClassVar[bool]

    def explain(self, question: Question) -> Found:
        """The maps of a batch; the network is at rest, and no gradient is kept unless it is asked for inside."""
