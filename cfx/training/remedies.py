"""Confounder-free training: ways to keep a classifier from using what its training rows confound with the class.

With y the class, c the confounder and F the pooled features of the classifier f = head o F:

    reweigh      every row weighs P(y) P(c) / P(y, c), under which y and c are independent (Kamiran & Calders, 2012).
    reversal     an adversary h tells c from F(x); the classifier minimises its cross-entropy less lambda times that of
                 h (gradient reversal: Ganin et al., 2016, arXiv 1505.07818). Where c tells y, so do features of y: what
                 they tell of y is removed as well.
    adversarial  h predicts c from F(x) within each class; the classifier minimises its cross-entropy plus lambda times
                 corr^2(c, h(F(x))) within the classes (BR-Net: Adeli et al., 2021, arXiv 1910.03676; CF-Net: Zhao et
                 al., 2020, Nat. Commun. 11:6010, on the controls alone). A link through y is left as it is.
    shape-swap   every image takes the brain shape of a row drawn from all classes alike, so that shape tells no class.

The adversary is a player of the loop: it learns with f held fixed, and f with the adversary held fixed.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from cfx.core import geometry, radial
from cfx.core.cohort import Cohort, Source
from cfx.core.distance import solid
from cfx.core.errors import InputError
from cfx.core.random import uniform
from cfx.core.registration import reshape
from cfx.runtime.config import Frozen
from cfx.training.adversaries import Adversary, Reversal, decorrelation
from cfx.training.objectives import REMEDY, Batch, check_labels
from cfx.training.order import Classes, at

_MOST_VALUES, _BINS = 8, 5  # a covariate of more values than these is cut into so many bins of equal counts


class ReweighConfig(Frozen):
    """Rows weighted so that class and confounder are independent."""

    kind: Literal["reweigh"]
    """Which remedy this is."""
    confounder: str
    """Name of the covariate; one of many values is cut into fifths."""


class ReversalConfig(Frozen):
    """The features must not tell the confounder: gradient reversal, on all rows."""

    kind: Literal["reversal"]
    """Which remedy this is."""
    confounder: str
    """Name of the covariate; one of many values is cut into fifths."""
    weight: float = Field(default=1.0, gt=0)
    """Weight of the adversary's cross-entropy at the end; it rises from 0."""


class AdversarialConfig(Frozen):
    """Nothing read from the features may correlate with the confounder within a class."""

    kind: Literal["adversarial"]
    """Which remedy this is."""
    confounder: str
    """Name of the covariate."""
    weight: float = Field(default=1.0, gt=0)
    """Weight of the squared correlation, relative to the cross-entropy."""


class ShapeSwapConfig(Frozen):
    """Every image takes the brain shape of another row, of a class drawn at random; needs masks."""

    kind: Literal["shape-swap"]
    """Which remedy this is."""


RemedyConfig = Annotated[
    ReweighConfig | ReversalConfig | AdversarialConfig | ShapeSwapConfig, Field(discriminator="kind")
]
"""How a classifier is kept from using a confounder."""


@dataclass(frozen=True)
class Swap:
    """Images in the brain shape of other rows.

    The own shape is passed through the same interpolation when it is kept: a sharp image would tell that its shape is
    that of its class.

    Attributes:
        mask: Brain of every row, without holes.
        classes: The rows to borrow from.
    """

    mask: Bool[Tensor, "n 1 *space"]
    classes: Classes

    def __call__(self, batch: Batch) -> Float[Tensor, "b c *space"]:
        """The images of a batch in the shape of a random row of a random class."""
        own, other = (self.mask[rows].to(batch.x.device) for rows in (batch.row.cpu(), self.donors(batch)))
        return reshape(batch.x, own, other, geometry.exponential(radial.transfer(own, other), largest_step=1.0))

    def donors(self, batch: Batch) -> Int[Tensor, " b"]:
        """Whose shape each row takes: first a class, each as likely, then one of its rows."""
        u = uniform((2,), seed=batch.seed, row=batch.slot.cpu(), stream=REMEDY)
        return self.classes.draw((u[:, 0] * len(self.classes.count)).long(), u[:, 1])


@dataclass(frozen=True)
class Remedy:
    """What a remedy changes of plain training; nothing by default.

    Attributes:
        weight: Weight of every row, of mean 1.
        swap: What is shown in place of the images.
        adversary: The second player.
    """

    weight: Float[Tensor, " n"] | None = None
    swap: Swap | None = None
    adversary: Adversary | None = None

    def weights(self, batch: Batch) -> Float[Tensor, " b"]:
        """Weight of each row of a batch."""
        return torch.ones(len(batch.x)).to(batch.x) if self.weight is None else at(self.weight, batch.row)

    def shown(self, batch: Batch) -> Batch:
        """The batch to train on."""
        return batch if self.swap is None else replace(batch, x=self.swap(batch))


def make_remedy(remedy: RemedyConfig | None, cohort: Source, steps: int) -> Remedy:
    """The remedy that a configuration names, for these training rows; None changes nothing.

    Raises:
        InputError: no class labels, no such covariate, one that is not finite or constant (within a class, for
            `adversarial`), a class without some value (`reweigh`), or no masks (`shape-swap`).
    """
    if remedy is None:
        return Remedy()
    check_labels(cohort, int(1e9))
    assert cohort.y is not None
    match remedy:
        case ReweighConfig():
            return Remedy(weight=balancing(cohort.y, groups(_covariate(cohort, remedy.confounder))))
        case ReversalConfig():
            group = groups(_covariate(cohort, remedy.confounder))
            return Remedy(adversary=Reversal(group, remedy.weight, steps))
        case AdversarialConfig():
            return Remedy(adversary=decorrelation(cohort, _covariate(cohort, remedy.confounder), remedy.weight))
        case ShapeSwapConfig():
            if not isinstance(cohort, Cohort):
                raise InputError(
                    "shape-swap: expected a cohort in memory, since donors come from all its masks; "
                    "got one that is read lazily (set data.lazy: false)"
                )
            if cohort.mask is None:
                raise InputError("cohort.mask: expected brain masks to swap shapes, got none")
            return Remedy(swap=Swap(solid(cohort.mask), Classes.of(cohort.y)))


def balancing(y: Int[Tensor, " n"], group: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """P(y) P(c) / P(y, c) of every row, from the rows' own frequencies; of mean 1.

    Args:
        y: Classes.
        group: Groups of the confounder.

    Raises:
        InputError: a class of which no row is in some group: no weights make the two independent.
    """
    _, k = y.unique(return_inverse=True)
    _, g = group.unique(return_inverse=True)
    joint = torch.zeros(int(k.max()) + 1, int(g.max()) + 1).index_put_((k, g), torch.ones(len(y)), accumulate=True)
    if bool((joint == 0).any()):
        raise InputError(
            f"confounder: expected every class to have rows with every value, got counts {joint.long().tolist()}"
        )
    weight: Tensor = joint.sum(1)[k] * joint.sum(0)[g] / (joint[k, g] * len(y))
    return weight


def groups(c: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Numbers 0, 1, ... of the values of a covariate; more than eight values are cut into fifths."""
    if len(c.unique()) > _MOST_VALUES:
        inner = torch.arange(1, _BINS).to(c) / _BINS
        c = torch.bucketize(c, c.quantile(inner), right=True)
    number: Tensor = c.unique(return_inverse=True)[1]
    return number


def _covariate(cohort: Source, name: str) -> Float[Tensor, " n"]:
    """A column as float32."""
    if name not in cohort.covariates:
        raise InputError(f"confounder: expected a covariate of the cohort, {sorted(cohort.covariates)}; got {name!r}")
    c = cohort.covariates[name].float()
    if not bool(torch.isfinite(c).all()) or bool((c == c[0]).all()):
        raise InputError(f"confounder: expected finite values of {name}, not all the same")
    return c
