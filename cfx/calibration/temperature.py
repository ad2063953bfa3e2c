"""Temperature scaling: logits divided by one number that makes held-out probabilities as likely as can be.

    p = softmax(z / T)                     scalar: the argmax stays, accuracy with it
    p = softmax(w z + b)                   vector: a slope and an offset a class; the argmax may change

The negative log-likelihood is convex in b = 1 / T, with derivative E[ E_p z - z_y ] and second derivative E[ Var_p z ],
so Newton steps kept inside a bracket find the one minimum to rounding; in (w, b) LBFGS does. Logits of voxels
`(n, k, *space)` share one temperature. With K classes, vector scaling has 2 K numbers to fit: give it rows enough.

Rows must be held out: on its training rows a network is too sure of itself, and T comes out too small. Where every row
is right the likelihood rises as T falls to 0, which says nothing of T: it stays 1, with a warning; where logits are no
better than chance, T is the largest, 100. Both are the conservative answer.

References: Guo, Pleiss, Sun, Weinberger (2017), "On calibration of modern neural networks"; Platt (1999).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from cfx.core.disjoint import People, check_disjoint, people
from cfx.core.errors import CfxWarning, InputError
from cfx.core.probabilities import Classes, Probabilities, classes, entries, logits

_HOTTEST = 100.0
_STEPS = 60
_CLOSE = 1e-10  # of 1 / T, relative


@dataclass(frozen=True)
class Temperature:
    """What logits are scaled by.

    Attributes:
        scale: Number that logits are multiplied by, 1 / T; or one a class.
        offset: Number that is added to the logits of each class; 0 where the scale is one number.
        rows: Rows it was fitted to.
        ids: Their subjects, where they were named.
    """

    scale: Float[Tensor, " c"]
    offset: Float[Tensor, " c"]
    rows: int = 0
    ids: tuple[str, ...] = field(default=(), repr=False)

    @property
    def t(self) -> float:
        """The temperature T, above 1 for a network that was too sure of itself.

        Raises:
            InputError: there is one a class.
        """
        if len(self.scale) != 1:
            raise InputError(
                f"t: expected one temperature, got a slope for each of {len(self.scale)} classes; see scale"
            )
        return float(1 / self.scale)

    @classmethod
    def fit(
        cls,
        held_out: Probabilities,
        y: Classes,
        *,
        kind: str = "scalar",
        ids: People = (),
        apart_from: Sequence[People] = (),
    ) -> "Temperature":
        """Fit to held-out logits.

        Args:
            held_out: Logits `(n, k, *space)` of rows that the network was not trained on.
            y: Their classes `(n, *space)`.
            kind: One temperature, or a slope and an offset a class.
            ids: The subject of every row, or their cohort; remembered, so that a threshold is not made of them too.
            apart_from: Cohorts, or what was fitted to some, that must not have these subjects.

        Raises:
            InputError: logits or classes that are none, or subjects in common.

        Warns:
            CfxWarning: all rows are right, or the logits are no better than chance.
        """
        z = logits(held_out, "held_out")
        truth = classes(y, z)
        names = people(ids, len(z))
        check_disjoint(names, apart_from)
        if kind not in ("scalar", "vector"):
            raise InputError(f"kind: expected scalar or vector, got {kind!r}")
        scale, offset = _scalar(z, truth) if kind == "scalar" else _vector(z, truth)
        return cls(scale, offset, len(z), names)

    def logits(self, z: Probabilities) -> Float[Tensor, "n k *space"]:
        """Scaled logits of any rows.

        Args:
            z: Logits `(n, k, *space)`.

        Raises:
            InputError: no finite logits, or of another number of classes than it was fitted to.
        """
        found = logits(z, "z")
        if len(self.scale) not in (1, found.shape[1]):
            raise InputError(f"z: expected logits of {len(self.scale)} classes, got {found.shape[1]}")
        shape = (1, -1, *[1] * (found.ndim - 2))
        return found * self.scale.to(found).view(shape) + self.offset.to(found).view(shape)

    def probabilities(self, z: Probabilities) -> Float[Tensor, "n k *space"]:
        """Softmax of `logits`; errors likewise."""
        return self.logits(z).softmax(1)


def _slopes(z: Float[Tensor, "n k *space"], y: Int[Tensor, "n *space"], beta: float) -> tuple[float, float]:
    """First and second derivative of the mean negative log-likelihood at 1 / T = beta."""
    first, second = torch.zeros(2, dtype=torch.float64, device=z.device)
    step = entries(z[0].numel())
    for part, own in zip(z.split(step), y.split(step), strict=True):
        part = part - part.amax(1, keepdim=True)
        p = (beta * part).softmax(1)
        mean = (p * part).sum(1)
        first = first + (mean - part.gather(1, own[:, None])[:, 0]).double().sum()
        second = second + ((p * part.square()).sum(1) - mean.square()).double().sum()
    return float(first) / y.numel(), float(second) / y.numel()


def _scalar(z: Float[Tensor, "n k *space"], y: Int[Tensor, "n *space"]) -> tuple[Tensor, Tensor]:
    """The scale 1 / T, and no offset."""
    low, high = 1 / _HOTTEST, 1.0
    if bool((z.argmax(1) == y).all()):
        return _as_it_was("every row is right, so that no temperature above 0 is best; it stays 1, pass more rows", 1.0)
    if _slopes(z, y, low)[0] >= 0:
        text = f"the logits tell no more of the classes than chance; the temperature is the largest, {_HOTTEST:g}"
        return _as_it_was(text, low)
    while _slopes(z, y, high)[0] < 0:
        low, high = high, 2 * high
    return _numbers(_root(z, y, low, high))


def _root(z: Tensor, y: Tensor, low: float, high: float) -> float:
    """Where the first derivative vanishes in the bracket: Newton, or halving where that leaves it."""
    beta = (low + high) / 2
    for _ in range(_STEPS):
        first, second = _slopes(z, y, beta)
        low, high = (beta, high) if first < 0 else (low, beta)
        new = beta - first / second if second > 0 else low - 1
        new = new if low < new < high else (low + high) / 2
        if abs(new - beta) <= _CLOSE * beta:
            return new
        beta = new
    return beta


def _as_it_was(text: str, beta: float) -> tuple[Tensor, Tensor]:
    warnings.warn(f"held_out: {text}", CfxWarning, stacklevel=4)
    return _numbers(beta)


def _numbers(beta: float) -> tuple[Tensor, Tensor]:
    return torch.tensor([beta], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)


def _vector(z: Float[Tensor, "n k *space"], y: Int[Tensor, "n *space"]) -> tuple[Tensor, Tensor]:
    """Slopes and offsets of the classes; the offsets add up to 0."""
    rows, own = z.movedim(1, -1).flatten(0, -2).double(), y.flatten()
    if lacking := sorted(set(range(z.shape[1])) - set(own.unique().tolist())):
        raise InputError(f"y: expected rows of every class to fit one slope and offset each, got none of {lacking[:8]}")
    scale = torch.ones(z.shape[1], dtype=torch.float64, device=z.device, requires_grad=True)
    offset = torch.zeros_like(scale, requires_grad=True)
    optimizer = torch.optim.LBFGS([scale, offset], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def closure() -> Tensor:
        optimizer.zero_grad()
        # a little ridge towards the logits as they are: separable rows would send the slopes to infinity
        ridge = 1e-6 * ((scale - 1).square().sum() + offset.square().sum())
        loss = functional.cross_entropy(rows * scale + offset, own) + ridge
        loss.backward()
        return loss

    optimizer.step(closure)
    return scale.detach().cpu(), (offset - offset.mean()).detach().cpu()
