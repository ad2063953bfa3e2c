"""How far apart are two sets of feature vectors, as samples of two distributions?

    Frechet:  ||mu_a - mu_b||^2 + tr( S_a + S_b - 2 (S_a S_b)^(1/2) )         of the means and covariances
    kernel:   unbiased MMD^2 with k(u, v) = (u.v / d + 1)^3                   of the feature vectors, d long

Bias. With n rows the Frechet distance of two samples of one distribution is positive, of the order d / n, and more so
the smaller n: compare only sets of equal size, and read it beside the same figure of real against real images. It is
computed exactly for any n, also n < d, where S is singular: if R_a'R_a = S_a and R_b'R_b = S_b, the eigenvalues of
S_a S_b are the squares of the singular values of R_a R_b', and no matrix root is taken. The kernel distance has no
bias, hence may be negative; it is the one to trust in small samples. Both depend on the scale of the features.

Split form, for a set and its edited copy. Against its own inputs the identity edit scores 0. With the subjects split in
halves A and B, the mean of d(real A, edited B) and d(real B, edited A) compares different subjects only, and the
identity edit scores what real images score. With class labels the real images of each class are compared with the edits
that aim at it, and the identity edit scores the distance between the classes.

Intervals. Subjects are reweighted, w ~ Dirichlet(1, ..., 1) (the Bayesian bootstrap), since drawing them with
replacement repeats rows and biases both distances; an image and its edit share a weight, in all splits. The spread is
then put around the estimate: what reweighting adds to the Frechet distance is bias, not uncertainty. The interval is
about what the estimator gives on average at this n, and a little short where n is small (measured: that of the Frechet
distance covers 92 % of the time at n = 120, that of the kernel distance 86 %).

References: Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter (2017), "GANs trained by a two time-scale update rule";
Binkowski, Sutherland, Arbel, Gretton (2018), "Demystifying MMD GANs"; Jeanneret, Simon, Jurie (2023), "Adversarial
counterfactual visual explanations" (split form); Rubin (1981), "The Bayesian bootstrap".
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.groups import numbered
from cfx.core.random import permutation
from cfx.core.statistics import Estimate, row_weights

SetDistance = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Features `(n, d)` and `(m, d)` with row weights `(k, n)` and `(k, m)` to `(k,)` distances: one of the two below."""


def frechet_distance(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], wa: Float[Tensor, "k n"], wb: Float[Tensor, "k m"]
) -> Float[Tensor, " k"]:
    """Frechet distance of two sets under `k` weightings of their rows; weights of one give the usual one."""
    found = []
    for u, v in zip(wa.split(8), wb.split(8), strict=True):  # some draws at a time: each has its own centred set
        (mean_a, root_a), (mean_b, root_b) = _moments(a, u), _moments(b, v)
        cross = torch.linalg.svdvals(root_a @ root_b.mT).sum(1)
        spread = root_a.square().sum((1, 2)) + root_b.square().sum((1, 2))
        found.append((mean_a - mean_b).square().sum(1) + spread - 2 * cross)
    return torch.cat(found).clamp_min(0)  # rounding


def _moments(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean `(k, d)`, and R `(k, min(n, d), d)` with R'R the weighted covariance, unbiased."""
    total = w.sum(1, keepdim=True)
    mean = w @ x / total
    freedom = total - w.square().sum(1, keepdim=True) / total
    scaled = (x - mean[:, None]) * (w / freedom).sqrt()[..., None]
    return mean, torch.linalg.qr(scaled, mode="r").R


def kernel_distance(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], wa: Float[Tensor, "k n"], wb: Float[Tensor, "k m"]
) -> Float[Tensor, " k"]:
    """Squared maximum mean discrepancy, cubic kernel, without bias, under `k` weightings of the rows."""
    across = ((wa @ _cubic(a, b)) * wb).sum(1) / (wa.sum(1) * wb.sum(1))
    return _within(a, wa) + _within(b, wb) - 2 * across


def _within(x: Tensor, w: Tensor) -> Tensor:
    """Mean kernel of pairs of different rows."""
    pairs = _cubic(x, x).fill_diagonal_(0)
    return ((w @ pairs) * w).sum(1) / (w.sum(1).square() - w.square().sum(1))


def _cubic(u: Tensor, v: Tensor) -> Tensor:
    return (u @ v.T / u.shape[1] + 1) ** 3


def split_distance(
    real: Float[Tensor, "n d"],
    edited: Float[Tensor, "n d"],
    distance: SetDistance = frechet_distance,
    *,
    label: Int[Tensor, " n"] | None = None,
    target: Int[Tensor, " n"] | None = None,
    groups: Int[Tensor, " _"] | None = None,
    splits: int = 10,
    draws: int = 100,
    seed: int = 0,
) -> Estimate:
    """Split form of a distance, mean over seeded splits, with its 95 % interval.

    Args:
        real: Features of the input images.
        edited: Features of their counterfactuals, row by row.
        distance: `frechet_distance` or `kernel_distance`.
        label: Class of every input image; with `target`, each class is compared with the edits that aim at it, and the
            classes count alike.
        target: Target class of every counterfactual.
        groups: Subject of every row: subjects stay whole in every half and share a weight. None where every row is one.
        splits: Random halvings.
        draws: Reweightings for the interval.
        seed: Seed of the halvings and of the reweighting.

    Raises:
        InputError: only one of `label` and `target`, or fewer than two rows on one side of a comparison.
    """
    if (label is None) != (target is None):
        raise InputError("label, target: expected both or neither, got one")
    n = len(real)
    of = torch.arange(n) if groups is None else numbered(groups, n)
    w = _weights(int(of.max()) + 1, draws, seed)[:, of]
    if label is None or target is None:
        label = target = torch.zeros(n, dtype=torch.long)
    classes = target.unique().tolist()
    total = torch.zeros(len(w), dtype=torch.float64)
    for ours, theirs in _halves(of, splits, seed):
        for k in classes:
            i, j = ours[label[ours] == k], theirs[target[theirs] == k]
            if min(len(i), len(j)) < 2:
                found = f"{len(i)} and {len(j)} of class {k}"
                raise InputError(f"real, edited: expected at least two rows of each in every half, got {found}")
            total += distance(real[i].double(), edited[j].double(), w[:, i], w[:, j])
    return _estimate(total / (2 * splits * len(classes)))


def _halves(of: Int[Tensor, " n"], splits: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of two halves of the subjects, and the same the other way round, for every split."""
    subjects = int(of.max()) + 1
    for s in range(splits):
        place = permutation(subjects, seed=seed, stream=s).argsort()[of]
        order, first = place.argsort(stable=True), int((place < subjects // 2).sum())
        yield order[:first], order[first:]
        yield order[first:], order[:first]


def _weights(n: int, draws: int, seed: int) -> Float[Tensor, "draws_and_one n"]:
    """All ones, for the estimate itself, then the reweightings."""
    return torch.cat([torch.ones(1, n, dtype=torch.float64), row_weights(n, draws=draws, seed=seed)])


def _estimate(found: Float[Tensor, " draws_and_one"]) -> Estimate:
    value, drawn = float(found[0]), found[1:]
    low, high = (drawn - drawn.mean()).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(value, value + low, value + high)
