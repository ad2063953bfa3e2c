"""Interventions on the confounder alone, and the networks' answers to them.

An intervention shows every test image several times, in arms that differ in one thing:

    untouched    the image
    identity     through the same resampling, unchanged
    round_trip   changed to the other class's and back
    same         with the confounder as another image of its own class has it
    opposite     with the confounder as an image of the other class has it
    dose_t       a part t of the way to `opposite`

and further ones of its own (`random`, `normalised`). The score of a row is its margin towards the other class,
logit[toward] - logit[y]; what the confounder does is score(opposite) - score(same).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cfx.core.errors import InputError
from cfx.models.classifiers import log_probs

UNTOUCHED, IDENTITY, ROUND_TRIP, SAME, OPPOSITE = "untouched", "identity", "round_trip", "same", "opposite"
NEEDED = (UNTOUCHED, IDENTITY, ROUND_TRIP, SAME, OPPOSITE)

Arms = Mapping[str, Float[Tensor, "b c *space"]]


def dose_arm(t: float) -> str:
    """Name of the arm of dose t."""
    return f"dose_{t:g}"


@dataclass(frozen=True)
class Shown:
    """Some rows of an intervention.

    Attributes:
        arms: Images `(b, c, *space)` of every arm.
        ok: Rows whose change came out as it should; the others take no part in the test, and are counted.
        quality: Further numbers of every row by name (overlap of masks, blur, ...).
    """

    arms: Arms
    ok: Bool[Tensor, " b"]
    quality: Mapping[str, Float[Tensor, " b"]]


@runtime_checkable
class Intervention(Protocol):
    """A confounder that can be changed on a given image."""

    @property
    def y(self) -> Int[Tensor, " n"]:
        """Class of every image."""

    @property
    def toward(self) -> Int[Tensor, " n"]:
        """The class whose confounder the arm `opposite` shows."""

    @property
    def start(self) -> str:
        """The arm that is dose 0: `identity` or `same`."""

    @property
    def donors(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]] | None:
        """Whose confounder the arms `opposite` and `same` show, numbers of one pool; None where nothing is borrowed."""

    def show(self, rows: Int[Tensor, " b"]) -> Shown:
        """All arms of these rows."""


@dataclass(frozen=True)
class Scores:
    """Margins towards the other class, of K networks on n images in every arm.

    Attributes:
        score: Arm -> `(k, n)`, logits (natural-log units).
        y: Class of every image.
        ok: Rows that take part.
        start: Arm of dose 0.
        donors: As `Intervention.donors`.
        quality: Numbers of every row by name.
    """

    score: Mapping[str, Float[Tensor, "k n"]]
    y: Int[Tensor, " n"]
    ok: Bool[Tensor, " n"]
    start: str
    donors: tuple[Int[Tensor, " n"], Int[Tensor, " n"]] | None
    quality: Mapping[str, Float[Tensor, " n"]]


@torch.no_grad()
def measure(classifiers: Sequence[nn.Module], intervention: Intervention, *, batch_size: int = 64) -> Scores:
    """Show every arm to every network; each image of an arm is made once.

    Args:
        classifiers: Networks from images to logits (one logit, or one a class), in evaluation mode.
        intervention: The confounder to change.
        batch_size: Rows worked on together; the result does not depend on it.

    Raises:
        InputError: no network, a network without the classes asked for, an arm missing, or non-finite logits.
    """
    if not classifiers:
        raise InputError("classifiers: expected at least one network, got none")
    y, toward, parts = intervention.y, intervention.toward, list[Shown]()
    scores: dict[str, list[Tensor]] = {}
    for rows in torch.arange(len(y)).split(batch_size):
        shown = intervention.show(rows)
        missing = [name for name in NEEDED if name not in shown.arms]
        if missing:
            raise InputError(f"intervention: expected the arms {list(NEEDED)}, got none called {missing}")
        for name, x in shown.arms.items():
            scores.setdefault(name, []).append(_margins(classifiers, x, y[rows], toward[rows]))
        parts.append(Shown({}, shown.ok, shown.quality))
    quality = {k: torch.cat([p.quality[k] for p in parts]) for k in parts[0].quality}
    joined = {name: torch.cat(found, 1) for name, found in scores.items()}
    ok = torch.cat([p.ok for p in parts])
    return Scores(joined, y, ok, intervention.start, intervention.donors, quality)


def _margins(classifiers: Sequence[nn.Module], x: Tensor, y: Tensor, toward: Tensor) -> Float[Tensor, "k b"]:
    """Margin of every network towards the other class."""
    found = []
    for k, f in enumerate(classifiers):
        logits = log_probs(f(x).float())  # a difference of log-probabilities is one of logits
        most = int(torch.stack([y, toward]).max())
        if most >= logits.shape[1]:
            raise InputError(
                f"classifiers: expected logits for class {most}, network {k} has {logits.shape[1]} classes"
            )
        if not bool(torch.isfinite(logits).all()):
            raise InputError(f"classifiers: expected finite logits, network {k} returned NaN or infinite ones")
        found.append((logits.gather(1, toward[:, None]) - logits.gather(1, y[:, None]))[:, 0])
    return torch.stack(found)
