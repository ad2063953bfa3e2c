"""Interventions on the confounder alone, and the networks' answers to them.

An intervention shows every test image several times, in arms that differ in one thing:

    untouched         the image
    identity          through the same machinery, unchanged
    same              with the confounder as another image of its own class has it
    opposite          with the confounder as an image of the other class has it
    round_trip        changed as for `opposite`, and back
    round_trip_same   changed as for `same`, and back
    dose_t            a part t of the way to `opposite`

and further ones of its own (`random`, `normalised`). Whatever a change does to an image besides (an interpolation blurs
it) must be in `same`, `opposite` and their round trips alike, as much and as often. The score of a row is its margin
towards the other class, logit[toward] - logit[y]; what the confounder does is score(opposite) - score(same), what
changing alone does is score(round_trip) - score(round_trip_same).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.gates import Gate
from cfx.core.rows import Rows, about
from cfx.models.gate import p_values
from cfx.models.judge import Classifier, Judge
from cfx.models.running import at_rest, device_of
from cfx.runtime.shares import shared

if TYPE_CHECKING:
    from accelerate import Accelerator

UNTOUCHED, IDENTITY, SAME, OPPOSITE = "untouched", "identity", "same", "opposite"
ROUND_TRIP, ROUND_TRIP_SAME = "round_trip", "round_trip_same"
NEEDED = (UNTOUCHED, IDENTITY, ROUND_TRIP, ROUND_TRIP_SAME, SAME, OPPOSITE)

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
        """All arms of these rows, on the device of `rows`."""


def taken(values: Shaped[Tensor, "n *rest"], rows: Int[Tensor, " b"]) -> Shaped[Tensor, "b *rest"]:
    """These rows of a tensor, on the device of `rows`."""
    return values[rows.to(values.device)].to(rows.device)


@dataclass(frozen=True)
class Scores(Rows):
    """Margins towards the other class, of K networks on n images in every arm.

    Attributes:
        row: Number of the image.
        y: Class of the image.
        ok: Whether the image takes part.
        score: Margin of every network by arm, logits (natural-log units).
        quality: Further numbers of the image by name.
        start: Arm of dose 0.
        other: Whose confounder the arm `opposite` shows, a number of one pool; None where nothing is borrowed.
        own: Whose confounder the arm `same` shows.
        gate_p: p-value of the image by the gate, by arm: small where it is out of distribution; none without a gate.
    """

    row: Int[Tensor, " n"]
    y: Int[Tensor, " n"] = field(metadata=about(array="label"))
    ok: Bool[Tensor, " n"]
    score: Mapping[str, Float[Tensor, "n network"]]
    quality: Mapping[str, Float[Tensor, " n"]]
    start: str
    other: Int[Tensor, " n"] | None = None
    own: Int[Tensor, " n"] | None = None
    gate_p: Mapping[str, Float[Tensor, " n"]] = field(default_factory=dict)

    @property
    def networks(self) -> int:
        """How many networks were asked."""
        return next(iter(self.score.values())).shape[1]

    def arm(self, name: str) -> Float[Tensor, "network n"]:
        """The scores of an arm, one line a network."""
        return self.score[name].T.contiguous()


@torch.no_grad()
def measure(
    classifiers: Sequence[Classifier],
    intervention: Intervention,
    *,
    batch_size: int = 64,
    gate: Gate | None = None,
    accelerator: "Accelerator | None" = None,
) -> Scores:
    """Show every arm to every network; each image of an arm is made once, on the device of the first network.

    Args:
        classifiers: Networks from images to logits (one logit, or one a class), which are asked in evaluation mode;
            their own mode is restored.
        intervention: The confounder to change.
        batch_size: Rows worked on together; the result does not depend on it.
        gate: What says of every image of every arm whether it is in distribution; the scores do not depend on it.
        accelerator: Share the batches among its processes; every process returns all rows.

    Raises:
        InputError: no network, a network without the classes asked for, an arm missing, non-finite logits, or a gate
            that gives no p-values.
        CfxError: another process failed.
    """
    asked, n = judges(classifiers), len(intervention.y)
    with at_rest(*classifiers):
        return shared(lambda rows: _measured(asked, intervention, rows, gate), Scores, n, batch_size, accelerator)


def judges(classifiers: Sequence[Classifier]) -> list[Judge]:
    """The networks behind their one gate.

    Raises:
        InputError: no network.
    """
    if not classifiers:
        raise InputError("classifiers: expected at least one network, got none")
    return [Judge(f, f"classifiers[{k}]") for k, f in enumerate(classifiers)]


def _measured(asked: Sequence[Judge], intervention: Intervention, rows: Tensor, gate: Gate | None) -> Scores:
    """The scores of one batch."""
    shown = intervention.show(rows.to(device_of(*(judge.classifier for judge in asked)) or rows.device))
    missing = [name for name in NEEDED if name not in shown.arms]
    if missing:
        raise InputError(f"intervention: expected the arms {list(NEEDED)}, got none called {missing}")
    y, toward = taken(intervention.y, rows), taken(intervention.toward, rows)
    score = {name: torch.stack([_margin(f, x, y, toward) for f in asked], 1) for name, x in shown.arms.items()}
    other, own = (None, None) if intervention.donors is None else (taken(d, rows) for d in intervention.donors)
    quality = {name: value.cpu() for name, value in shown.quality.items()}
    p = {} if gate is None else {name: p_values(gate, x) for name, x in shown.arms.items()}
    return Scores(rows, y, shown.ok.cpu(), score, quality, intervention.start, other, own, p)


def _margin(judge: Judge, x: Tensor, y: Tensor, toward: Tensor) -> Float[Tensor, " b"]:
    """Margin of a network towards the other class."""
    logits = judge.logits(x).cpu().log_softmax(1)  # a difference of log-probabilities is one of logits
    most = int(torch.stack([y, toward]).max())
    if most >= logits.shape[1]:
        raise InputError(f"{judge.name}: expected logits for class {most}, got those of {logits.shape[1]} classes")
    if not bool(torch.isfinite(logits).all()):
        raise InputError(f"{judge.name}: expected finite logits, got NaN or infinite ones")
    return (logits.gather(1, toward[:, None]) - logits.gather(1, y[:, None]))[:, 0]
