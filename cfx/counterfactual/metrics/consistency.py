"""Two laws a counterfactual function should obey: asking for nothing changes nothing, and there-and-back is home.

    composition^m:    d(x, h^m(x))              h the null edit (the class stays as it is), m = 1 .. M
    reversibility:    d(x, cf(cf(x, y'), y))    y the class x comes from

Reference: Monteiro, De Sousa Ribeiro, Pawlowski, Castro, Glocker (2023), "Measuring axiomatic soundness of
counterfactual image models".
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.values import Counterfactuals
from cfx.counterfactual.metrics.measure import Distance, apart, source_class


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
