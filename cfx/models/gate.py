"""A gate, asked: whether images are still in distribution, with the same care as any network of a user's."""

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.gates import Gate
from cfx.models.running import ask, at_rest

OUT = 0.05
"""An image is out of distribution to a gate where its p-value is at most this, as one in twenty is that is in."""


def check_gate(gate: object, name: str = "gate") -> None:
    """Refuse what cannot be asked for p-values.

    Raises:
        InputError: no function of images, or a class.
    """
    if not isinstance(gate, Gate) or isinstance(gate, type):
        came = f"the class {gate.__name__}" if isinstance(gate, type) else type(gate).__name__
        raise InputError(f"{name}: expected a function from images to p-values, such as cfx.ood.fit(...), got {came}")


@torch.no_grad()
def p_values(
    gate: Gate, x: Float[Tensor, "n c *space"], *, name: str = "gate", device: torch.device | None = None
) -> Float[Tensor, " n"]:
    """What a gate says of images, which it is shown as copies; float64, on the CPU.

    Args:
        gate: The gate; if it is a module, at rest.
        x: Images in [-1, 1]; of none nothing is asked.
        name: What the gate is called in errors.
        device: Where a gate without parameters works; by default where the images are.

    Raises:
        InputError: it cannot take these images, or returns something else than a p-value of each.
    """
    if not len(x):
        return torch.zeros(0, dtype=torch.float64)
    with at_rest(gate):
        p = ask(gate, x, name=name, device=device)
    if not isinstance(p, Tensor) or p.shape != (len(x),):
        came = tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__
        raise InputError(f"{name}: expected one p-value an image, of shape ({len(x)},), got {came}")
    p = p.detach().double().cpu()
    if not bool(((p >= 0) & (p <= 1)).all()):
        low, high = p.min(), p.max()
        raise InputError(
            f"{name}: expected p-values in (0, 1], small for images out of distribution, got [{low:.3g}, {high:.3g}]; "
            "of a score make p-values first (cfx.core.conformal.conformal_p_values)"
        )
    return p
