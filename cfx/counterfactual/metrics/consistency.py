"""Two laws a counterfactual function should obey: asking for nothing changes nothing, and there-and-back is home.

    composition^m:    d(x, h^m(x))              h the null edit (the class stays as it is), m = 1 .. M
    reversibility:    d(x, cf(cf(x, y'), y))    y the class x comes from

Reference: Monteiro, De Sousa Ribeiro, Pawlowski, Castro, Glocker (2023), "Measuring axiomatic soundness of
counterfactual image models".
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError
from cfx.counterfactual.method import Meter, Problem
from cfx.counterfactual.metrics.measure import Distance, apart, source_class
from cfx.counterfactual.result import Counterfactuals
from cfx.models.goal import Goal
from cfx.models.judge import Classifier, Judge, margin_of
from cfx.models.running import at_rest, device_of


@runtime_checkable
class Nullable(Protocol):
    """A method with an exact null edit."""

    def null(self, problem: Problem) -> Float[Tensor, "b c *space"]:
        """The images of a problem after the method's edit of strength 0."""


@torch.no_grad()
def null_drift(
    there: Counterfactuals,
    classifier: Classifier,
    generator: object,
    method: Nullable,
    *,
    cycles: int = 10,
    batch_size: int = 32,
) -> Float[Tensor, " n"]:
    """Largest change of a pixel after some null edits in a row, each made as the method makes it in a run.

    Args:
        there: The run: its images, their classes, its depth, seed and counters are those of the edits.
        classifier: The classifier that is explained.
        generator: The generator of the run.
        method: Its method.
        cycles: How many edits.
        batch_size: Images worked on together.

    Raises:
        InputError: fewer than one cycle.
    """
    judge = Judge(classifier)

    def null(x: Tensor) -> Tensor:
        out = x.clone()
        for rows in torch.arange(len(x)).split(batch_size):
            if len(rows):
                out[rows] = method.null(_asked_for_nothing(x[rows], there[rows], judge, generator)).cpu()
        return out

    with at_rest(classifier, generator):
        return composition(there.x, null, cycles=cycles, distance=_largest)[:, -1]


def _largest(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().flatten(1).amax(1)


def _asked_for_nothing(x: Tensor, there: Counterfactuals, judge: Judge, generator: object) -> Problem:
    """The problem of these rows, on the device of the generator."""
    device = device_of(generator) or x.device
    return Problem(
        x=x.to(device),
        source=source_class(there).to(device),
        target=there.target.to(device),
        goal=Goal.of(judge, there.margin, there.depth).to(device),
        before=margin_of(there.probs_before.log(), there.target).to(device),
        row=there.row.to(device),
        seed=there.seed,
        judge=judge,
        generator=generator,
        meter=Meter(len(x), device),
        labelled=judge.speaks(generator, there.probs_before.shape[1]),
    )


def composition(
    x: Float[Tensor, "n c *space"],
    null: Callable[[Tensor], Tensor],
    *,
    cycles: int = 10,
    distance: Distance | None = None,
) -> Float[Tensor, "n cycles"]:
    """Distance from x after 1, 2, ... null edits in a row.

    Args:
        x: Images in [-1, 1].
        null: The null edit, images to images.
        cycles: M.
        distance: Distance of two batches of images; root mean square by default.

    Raises:
        InputError: fewer than one cycle.
    """
    if cycles < 1:
        raise InputError(f"cycles: expected at least 1, got {cycles}")
    now, found = x, []
    for _ in range(cycles):
        now = null(now)
        found.append(apart(x, now, distance))
    return torch.stack(found, 1)


def reversibility(
    there: Counterfactuals,
    back: Counterfactuals | Callable[[Tensor, Tensor], Tensor],
    *,
    distance: Distance | None = None,
) -> Float[Tensor, " n"]:
    """Distance between x and the counterfactual of its counterfactual, back in the class x comes from.

    Args:
        there: The first run.
        back: The second run, whose inputs are the first one's counterfactuals; or a function of these images and the
            classes to go back to (the most probable one of x besides the target) that returns the images.
        distance: Distance of two batches of images; root mean square by default.

    Raises:
        InputError: a second run on other images than the counterfactuals of the first.
    """
    if not isinstance(back, Counterfactuals):
        return apart(there.x, back(there.x_cf, source_class(there)), distance)
    if not torch.equal(back.x, there.x_cf):
        raise InputError("back: expected a run on the counterfactuals of `there`, got one on other images")
    return apart(there.x, back.x_cf, distance)
