"""do(c) on planted confounders: the same image with the object, scanner or shape of the other class.

In a simulated cohort every subject can be rendered again with one factor changed and all else, down to the noise, the
same: the exact intervention, against which estimated ones are checked. Users' own pairs (an image with its ruler and
with the ruler removed) come as a `Toggle` as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.confounder.intervention import (
    IDENTITY,
    OPPOSITE,
    ROUND_TRIP,
    ROUND_TRIP_SAME,
    SAME,
    UNTOUCHED,
    Shown,
    dose_arm,
    taken,
)
from cfx.confounder.plan import Kind
from cfx.core.broadcast import each
from cfx.core.cohort import Cohort, check_images
from cfx.core.errors import InputError
from cfx.data.brain import SIGNED, BrainConfig, Population, load_brain


@dataclass(frozen=True)
class Toggle:
    """An intervention whose images exist already.

    Attributes:
        y: Class of every image, 0 or 1.
        untouched: The images `(n, c, *space)` in [-1, 1].
        absent: The same images with the confounder as class 0 tends to have it.
        present: The same images with the confounder as class 1 tends to have it.
        back: The images after changing to the other class's state and back; the untouched ones by default. What the
            change to the own class's state leaves behind is taken as nothing.
        doses: Further images by dose: part t of the way from the own class's state to the other's.
    """

    y: Int[Tensor, " n"]
    untouched: Float[Tensor, "n c *space"]
    absent: Float[Tensor, "n c *space"]
    present: Float[Tensor, "n c *space"]
    back: Float[Tensor, "n c *space"] | None = None
    doses: Mapping[float, Float[Tensor, "n c *space"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that all images are of the same rows, and that there are two classes."""
        if sorted(self.y.unique().tolist()) != [0, 1]:
            raise InputError(f"y: expected both classes 0 and 1, got {self.y.unique().tolist()}")
        named = {"untouched": self.untouched, "absent": self.absent, "present": self.present, "back": self.back}
        named |= {f"doses[{t}]": x for t, x in self.doses.items()}
        for name, x in named.items():
            if x is None:
                continue
            check_images(x, name)
            if x.shape != (len(self.y), *self.untouched.shape[1:]):
                raise InputError(f"{name}: expected {len(self.y)} images as in untouched, got shape {tuple(x.shape)}")

    @property
    def toward(self) -> Int[Tensor, " n"]:
        """The other class."""
        return 1 - self.y

    @property
    def start(self) -> str:
        """Doses lead from the own class's state to the other's."""
        return SAME

    @property
    def donors(self) -> None:
        """Nothing is borrowed from other subjects."""

    def show(self, rows: Int[Tensor, " b"]) -> Shown:
        """All arms of these rows, on the device of `rows`."""
        untouched, absent, present = (taken(x, rows) for x in (self.untouched, self.absent, self.present))
        own = each(taken(self.y, rows) == 1, untouched)
        arms = {
            UNTOUCHED: untouched,
            IDENTITY: untouched,
            ROUND_TRIP: untouched if self.back is None else taken(self.back, rows),
            ROUND_TRIP_SAME: untouched,
            SAME: torch.where(own, present, absent),
            OPPOSITE: torch.where(own, absent, present),
        }
        arms |= {dose_arm(t): taken(x, rows) for t, x in self.doses.items()}
        return Shown(arms, torch.ones(len(rows), dtype=torch.bool), {})


def simulated(config: BrainConfig, kind: Kind, *, doses: tuple[float, ...] = ()) -> tuple[Toggle, Cohort]:
    """The exact intervention on a planted factor of simulated brains, and the untouched cohort.

    The arms `identity` and `round_trip` are rendered anew; that they come out the same is checked by the test itself.

    Args:
        config: The subjects; `kind` must be among their confounders.
        kind: The factor to change.
        doses: Parts of the way from the own class's state of the factor to the other's.

    Raises:
        InputError: the factor is not planted in these subjects, or the class is not the disease.
    """
    planted = {c.kind: c for c in config.confounders}
    if kind not in planted or config.label != "disease":
        raise InputError(
            f"config: expected subjects labelled by disease with a planted {kind}, "
            f"got label {config.label!r} and confounders {sorted(planted)}"
        )
    people = Population(config)
    index = torch.arange(config.start, config.start + config.n)
    factors, y = people.factors(index), people.labels(index)
    high = torch.full((config.n,), planted[kind].strength)
    low = -high if kind in SIGNED else torch.zeros_like(high)

    def image(value: Tensor) -> Tensor:
        """The subjects with this amplitude of the factor."""
        return people.render(replace(factors, planted={**factors.planted, kind: value})).x

    own, other = torch.where(y == 1, high, low), torch.where(y == 1, low, high)
    steps = {t: image(torch.lerp(own, other, t)) for t in doses}
    cohort, back = load_brain(config), image(factors.planted[kind])
    return Toggle(y, cohort.x, image(low), image(high), back, steps), cohort
