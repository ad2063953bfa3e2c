"""Do probabilities mean what they say? Of all rows that were given the probability c, a share c should turn out right.

Rows are put in bins by their confidence, intervals (a, b] of equal width or with equally many rows. With n_b rows of
mean confidence c_b in bin b, a share a_b of them right, and B bins that are not empty:

    ECE    sum_b n_b / n |a_b - c_b|     the expected calibration error, by rows
    ACE    sum_b 1 / B |a_b - c_b|       the average one: rare confidences count as much as common ones
    MCE    max_b |a_b - c_b|             the largest

The first two go by one name in places; which one a figure is has to be said. None is 0 for a calibrated model in a
finite sample, and all grow with the number of bins: compare at equal n and equal bins. With d = right - confidence of a
row and s_b^2 the variance of d in bin b, over n_b - 1,

    sum_b n_b / n (mean(d)^2 - s_b^2 / n_b)     the squared error of the bins without that bias

is 0 on average for a calibrated model, and so may be negative; bins with one row do not tell and are left out. They do
not ask whether the probabilities tell anything; the Brier score, sum_k (p_k - [y = k])^2, does, being proper. (It lies
in [0, 2]; its mean over classes, a K-th of it, is also in use.)

Rows may be images or voxels: give those of one image for its own error, or those of all for the pooled one. For the
classwise error take `reliability(p[:, k], y == k)` of every class k.

References: Brier (1950); Naeini, Cooper, Hauskrecht (2015) and Guo, Pleiss, Sun, Weinberger (2017), "On calibration of
modern neural networks", for ECE; Kumar, Liang, Ma (2019), "Verified uncertainty calibration", for the estimate without
bias (they take a_b (1 - a_b) for the variance, which leaves out how confidences vary in a bin); Neumann, Zisserman,
Vedaldi (2018) for ACE; Nguyen, O'Connor (2015) for equal counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.errors import InputError

BINS = 15
"""Bins of Guo et al. (2017)."""
_CHUNK = 1 << 22  # rows worked on at a time; of few, threads wait for each other longer than they work


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: what was said and what came, bin by bin, float64.

    Attributes:
        edges: Ends of the bins, from 0 to 1.
        count: Rows in each bin.
        confidence: Their mean confidence; NaN where there are none.
        accuracy: Share of them that is right; NaN where there are none.
        variance: Variance of right - confidence among them, over n - 1; NaN where there are fewer than two.
    """

    edges: Float[Tensor, " edges"]
    count: Int[Tensor, " bins"]
    confidence: Float[Tensor, " bins"]
    accuracy: Float[Tensor, " bins"]
    variance: Float[Tensor, " bins"]

    @classmethod
    def of(cls, edges: Float[Tensor, " edges"], sums: Float[Tensor, "sums=4 bins"]) -> Self:
        """The diagram of what `bin_sums` found, added up over any number of parts."""
        n, confidence, right, squares = sums
        d = (right - confidence) / n
        return cls(edges, n.long(), confidence / n, right / n, ((squares - n * d * d) / (n - 1)).clamp_min(0))

    @property
    def gap(self) -> Float[Tensor, " filled"]:
        """|accuracy - confidence| of the bins that are not empty."""
        return (self.accuracy - self.confidence).abs()[self.count > 0]

    @property
    def ece(self) -> float:
        """Expected calibration error: the gaps weighted by rows."""
        count = self.count[self.count > 0]
        return float((self.gap * count).sum() / count.sum())

    @property
    def ace(self) -> float:
        """Average calibration error: all gaps alike."""
        return float(self.gap.mean())

    @property
    def squared(self) -> float:
        """Squared error of the bins without bias (see the module); NaN where no bin has two rows."""
        some = self.count > 1
        n, d = self.count[some], (self.accuracy - self.confidence)[some]
        return float((n * (d.square() - self.variance[some] / n)).sum() / n.sum())

    @property
    def mce(self) -> float:
        """Largest gap."""
        return float(self.gap.max())


def reliability(
    confidence: Float[Tensor, " n"],
    right: Bool[Tensor, " n"] | Float[Tensor, " n"],
    *,
    bins: int = BINS,
    equal: Literal["width", "count"] = "width",
) -> Reliability:
    """Confidence and accuracy in bins of confidence.

    Args:
        confidence: Probability that was given to each row, in [0, 1].
        right: Whether it turned out so; or, of several judges, the share who say so.
        bins: Number of bins.
        equal: Bins of equal width, or with equally many rows (as far as ties allow).

    Raises:
        InputError: no rows, fewer than one bin, or confidences that are no probabilities.
    """
    if not len(confidence) or bins < 1:
        raise InputError(f"confidence, bins: expected at least one of each, got {len(confidence)} and {bins}")
    if not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise InputError(f"confidence: expected [0, 1], got [{confidence.min():.4g}, {confidence.max():.4g}]")
    edges = even_edges(bins) if equal == "width" else _by_count(confidence.double(), bins)
    return Reliability.of(edges.to(confidence.device), bin_sums(confidence, right, edges))


def even_edges(bins: int) -> Float[Tensor, " edges"]:
    """Edges of bins of equal width."""
    return torch.linspace(0, 1, bins + 1, dtype=torch.float64)


def bin_sums(
    confidence: Float[Tensor, " n"], right: Bool[Tensor, " n"] | Float[Tensor, " n"], edges: Float[Tensor, " edges"]
) -> Float[Tensor, "sums=4 bins"]:
    """Of every bin its rows, and the sums of confidence, right and (right - confidence)^2, float64.

    Sums of parts add up to those of the whole; memory does not grow with the rows.

    Args:
        confidence: As in `reliability`.
        right: As in `reliability`.
        edges: Ends of the bins.
    """
    bins, inner = len(edges) - 1, edges[1:-1].to(confidence.device)
    total = torch.zeros(4, bins, dtype=torch.float64, device=confidence.device)
    for c, hit in _parts(confidence, right):
        c, hit = c.double().contiguous(), hit.double()
        place = torch.bucketize(c, inner, out_int32=True)  # (a, b], as Guo et al. have it; 0 is in the first
        rows = place.bincount(minlength=bins)
        total += torch.stack([rows, *(place.bincount(v, minlength=bins) for v in (c, hit, (hit - c).square()))])
    return total


def _parts(confidence: Tensor, right: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some rows at a time."""
    for start in range(0, len(confidence), _CHUNK):
        yield confidence[start : start + _CHUNK], right[start : start + _CHUNK]


def _by_count(c: Float[Tensor, " n"], bins: int) -> Float[Tensor, " edges"]:
    """Edges between which equally many values lie, up to one."""
    last = (torch.arange(1, bins) * len(c) - 1) // bins
    return torch.cat([c.new_zeros(1), c.sort().values[last], c.new_ones(1)])


def top_label(p: Float[Tensor, "n k *space"], y: Int[Tensor, "n *space"]) -> tuple[Tensor, Tensor]:
    """Confidence in the most probable class and whether it is the right one, of every row or voxel, flat.

    Args:
        p: Probabilities.
        y: Classes.
    """
    confidence, decided = p.max(1)
    return confidence.flatten(), (decided == y).flatten()


def brier(p: Float[Tensor, "n k *space"], y: Int[Tensor, "n *space"]) -> Float[Tensor, "n *space"]:
    """Brier score of every row or voxel, summed over classes, in [0, 2].

    Args:
        p: Probabilities.
        y: Classes.
    """
    own = p.gather(1, y[:, None])[:, 0]
    return p.square().sum(1) - 2 * own + 1
