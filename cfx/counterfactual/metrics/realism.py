"""Do the counterfactuals, as a set, look like real images? Distances between two sets in a named feature space.

    Frechet:  ||mu_a - mu_b||^2 + tr( S_a + S_b - 2 (S_a S_b)^(1/2) )         of the means and covariances
    kernel:   unbiased MMD^2 with k(u, v) = (u.v / d + 1)^3                   of the feature vectors, d long

Bias. With n rows the Frechet distance of two samples of one distribution is positive, of the order d / n, and more so
the smaller n: compare only sets of equal size, and read it beside the same figure of real against real images. It is
computed exactly for any n, also n < d, where S is singular: if R_a'R_a = S_a and R_b'R_b = S_b, the eigenvalues of
S_a S_b are the squares of the singular values of R_a R_b', and no matrix root is taken. The kernel distance has no
bias, hence may be negative; it is the one to trust in small samples. Both depend on the scale of the features.

Split form. Against its own inputs the identity edit scores 0. With the rows split in halves A and B, the mean of
d(real A, edited B) and d(real B, edited A) compares different subjects only, and the identity edit scores what real
images score. With class labels the real images of each class are compared with the edits that aim at it, and the
identity edit scores the distance between the classes.

Intervals. Rows are reweighted, w ~ Dirichlet(1, ..., 1) (the Bayesian bootstrap), since drawing rows with replacement
repeats some and biases both distances; an image and its edit share a weight, in all splits. The spread is then put
around the estimate: what reweighting adds to the Frechet distance is bias, not uncertainty. The interval is about what
the estimator gives on average at this n, and that of the kernel distance is a little short where n is small (measured:
it covers 89 % of the time at n = 60).

References: Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter (2017), "GANs trained by a two time-scale update rule";
Binkowski, Sutherland, Arbel, Gretton (2018), "Demystifying MMD GANs"; Jeanneret, Simon, Jurie (2023), "Adversarial
counterfactual visual explanations" (split form); Rubin (1981), "The Bayesian bootstrap".
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.errors import InputError
from cfx.core.random import permutation
from cfx.core.statistics import Estimate, row_weights
from cfx.models.features import PooledFeatures
from cfx.models.running import in_batches

SetDistance = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Features `(n, d)` and `(m, d)` with row weights `(k, n)` and `(k, m)` to `(k,)` distances: `frechet` or `kernel`."""


@dataclass(frozen=True)
class FeatureSpace:
    """Where images are compared; a distance means nothing without the name of its space.

    Attributes:
        name: What the space is called in reports.
        features: Images to feature vectors `(b, d)`.
    """

    name: str
    features: Callable[[Tensor], Tensor]

    def __call__(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n d"]:
        """Features of all images, in float64 on the CPU.

        Raises:
            InputError: the features are not one finite vector an image.
        """
        found = in_batches(self.features, x).double()
        if found.ndim != 2 or not bool(found.isfinite().all()):
            raise InputError(f"features of {self.name}: expected finite vectors (n, d), got shape {tuple(found.shape)}")
        return found


def penultimate(classifier: nn.Module, name: str, layer: str | None = None) -> FeatureSpace:
    """The space a classifier decides in: its last feature map, averaged over space.

    Args:
        classifier: A network of this package, or any other with `layer`.
        name: What the space is called in reports.
        layer: Name of the part that returns the map, or the vectors.

    Raises:
        InputError: see `cfx.models.features.FeatureMaps`.
    """
    return FeatureSpace(name, PooledFeatures(classifier, layer))


def frechet(
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


def kernel(
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


def distance_between(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    distance: SetDistance = frechet,
    *,
    draws: int = 100,
    seed: int = 0,
) -> Estimate:
    """Distance of two independent sets with its 95 % interval.

    Args:
        a: Features of one set, real images say.
        b: Features of the other, counterfactuals of other subjects; for those of the same use `split_distance`.
        distance: `frechet` or `kernel`.
        draws: Reweightings for the interval.
        seed: Seed of the reweighting.

    Raises:
        InputError: fewer than two rows in a set.
    """
    for name, x in (("a", a), ("b", b)):
        if len(x) < 2:
            raise InputError(f"{name}: expected at least two rows, got {len(x)}")
    w = _weights(len(a) + len(b), draws, seed)
    return _estimate(distance(a.double(), b.double(), w[:, : len(a)], w[:, len(a) :]))


def split_distance(
    real: Float[Tensor, "n d"],
    edited: Float[Tensor, "n d"],
    distance: SetDistance = frechet,
    *,
    label: Int[Tensor, " n"] | None = None,
    target: Int[Tensor, " n"] | None = None,
    splits: int = 10,
    draws: int = 100,
    seed: int = 0,
) -> Estimate:
    """Split form of a distance, mean over seeded splits, with its 95 % interval.

    Args:
        real: Features of the input images.
        edited: Features of their counterfactuals, row by row.
        distance: `frechet` or `kernel`.
        label: Class of every input image; with `target`, each class is compared with the edits that aim at it, and the
            classes count alike.
        target: Target class of every counterfactual.
        splits: Random halvings.
        draws: Reweightings for the interval.
        seed: Seed of the halvings and of the reweighting.

    Raises:
        InputError: only one of `label` and `target`, or fewer than two rows on one side of a comparison.
    """
    if (label is None) != (target is None):
        raise InputError("label, target: expected both or neither, got one")
    n = len(real)
    if label is None or target is None:
        label = target = torch.zeros(n, dtype=torch.long)
    w = _weights(n, draws, seed)
    classes = target.unique().tolist()
    total = torch.zeros(len(w), dtype=torch.float64)
    for s in range(splits):
        order = permutation(n, seed=seed, stream=s)
        for ours, theirs in ((order[: n // 2], order[n // 2 :]), (order[n // 2 :], order[: n // 2])):
            for k in classes:
                i, j = ours[label[ours] == k], theirs[target[theirs] == k]
                if min(len(i), len(j)) < 2:
                    found = f"{len(i)} and {len(j)} of class {k}"
                    raise InputError(f"real, edited: expected at least two rows of each in every half, got {found}")
                total += distance(real[i].double(), edited[j].double(), w[:, i], w[:, j])
    return _estimate(total / (2 * splits * len(classes)))


def _weights(n: int, draws: int, seed: int) -> Float[Tensor, "draws_and_one n"]:
    """All ones, for the estimate itself, then the reweightings."""
    return torch.cat([torch.ones(1, n, dtype=torch.float64), row_weights(n, draws=draws, seed=seed)])


def _estimate(found: Float[Tensor, " draws_and_one"]) -> Estimate:
    value, drawn = float(found[0]), found[1:]
    low, high = (drawn - drawn.mean()).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(value, value + low, value + high)
