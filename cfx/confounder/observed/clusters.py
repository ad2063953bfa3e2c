"""Groups of explanation maps: does a classifier have more than one way of deciding, and what goes with each?

Spectral relevance analysis: maps are rectified, downsampled and scaled to length one; the k nearest neighbours make a
graph with symmetrised affinity A and degrees D; the eigenvalues 0 = l_1 <= l_2 <= ... of L = I - D^-1/2 A D^-1/2 tell
by their largest gap l_(K+1) - l_K how many clusters there are, and k-means on the first K eigenvectors finds them.
A cluster alone proves nothing: `associations` asks of every column of metadata whether it goes with the clusters, by
permutation. The clusters never see the metadata, so these p-values are exact.

References: Lapuschkin, Waeldchen, Binder, Montavon, Samek, Mueller (2019), "Unmasking Clever Hans predictors and
assessing what machines really learn", methods; Ng, Jordan, Weiss (2001), "On spectral clustering"; von Luxburg (2007),
section 8.3 for the eigengap; Arthur and Vassilvitskii (2007), "k-means++".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from cfx.confounder.observed.conditional import levels_of, one_hot
from cfx.confounder.observed.independence import permutation_p, shuffles
from cfx.confounder.observed.variables import coarse
from cfx.core.broadcast import each
from cfx.core.errors import InputError
from cfx.core.random import uniform
from cfx.core.statistics import holm

_RESTARTS = 20
_ITERATIONS = 100


@dataclass(frozen=True)
class Clusters:
    """Clusters of maps, the largest first.

    Attributes:
        labels: Cluster of every map, from 0.
        eigenvalues: The smallest eigenvalues of the normalised Laplacian, rising, in [0, 2].
        gap: The largest gap between two of them, which sets the number of clusters.
        embedding: Coordinates of every map for a drawing: second and third eigenvector of I - D^-1 A.
        mean: Mean map of each cluster, as handed in (neither rectified nor scaled).
    """

    labels: Int[Tensor, " n"]
    eigenvalues: Float[Tensor, " e"]
    gap: float
    embedding: Float[Tensor, "n 2"]
    mean: Float[Tensor, "k 1 *space"]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of maps in each cluster."""
        return tuple(torch.bincount(self.labels).tolist())


@dataclass(frozen=True)
class Association:
    """How far one column of metadata goes with the clusters.

    Attributes:
        name: The column.
        measure: Mutual information in bits for categories; for numbers the correlation ratio, the share of the
            variance between clusters.
        value: Its value; 0 is none.
        p_value: By permutation, (1 + b) / (1 + m).
        p_holm: Adjusted over all columns.
        n: Rows that have a value.
    """

    name: str
    measure: Literal["mutual information", "correlation ratio"]
    value: float
    p_value: float
    p_holm: float
    n: int


def cluster(
    maps: Float[Tensor, "n 1 *space"], *, neighbours: int = 10, most: int = 10, side: int = 16, seed: int = 0
) -> Clusters:
    """Spectral clusters of explanation maps. The order of the maps makes no difference.

    Memory grows with n^2, time with n^3: a few thousand maps.

    Args:
        maps: Attributions of any method and scale; evidence for the decision is positive, and only that counts.
        neighbours: Neighbours of each map in the graph.
        most: Most clusters looked for.
        side: Maps are averaged down to at most this many voxels along each axis.
        seed: Seed of the starts of k-means.

    Raises:
        InputError: not `(n, 1, *space)` with 2 or 3 spatial axes, non-finite values, not more than `neighbours` maps,
            or a `neighbours`, `most` or `side` below 1.
    """
    _check(maps, neighbours, most, side)
    values, vectors, degree = _spectrum(_affinity(_prepared(maps, side), neighbours))
    values = values[: most + 1]
    gaps = values.diff()
    k = int(gaps.argmax()) + 1
    labels = _largest_first(_kmeans(F.normalize(vectors[:, :k], dim=1), k, seed))
    hot = one_hot(labels).to(maps.dtype)
    mean = torch.tensordot(hot.T, maps, 1) / each(hot.sum(0), maps)
    embedding = vectors[:, 1:3] / degree.sqrt()[:, None]
    return Clusters(labels, values.float(), float(gaps.max()), embedding.float(), mean)


def associations(
    labels: Int[Tensor, " n"], metadata: Mapping[str, Shaped[Tensor, " n"]], *, permutations: int = 999, seed: int = 0
) -> tuple[Association, ...]:
    """Does the metadata go with the clusters? One test a column, the strongest evidence first.

    Args:
        labels: Cluster of every map.
        metadata: Columns by name. Integers, booleans and columns of few values, which may be codes, are categories,
            others numbers; rows where a column is NaN are left out of its test.
        permutations: m.
        seed: Seed of the permutations.

    Raises:
        InputError: no column, a column of another length or without a value, or no permutations.
    """
    if not metadata or permutations < 1:
        raise InputError(f"metadata, permutations: expected at least one of each, got {len(metadata)}, {permutations}")
    found = [_associate(labels, name, column, permutations, seed) for name, column in metadata.items()]
    adjusted = holm(torch.tensor([a.p_value for a in found], dtype=torch.float64)).tolist()
    held = [Association(a.name, a.measure, a.value, a.p_value, p, a.n) for a, p in zip(found, adjusted, strict=True)]
    return tuple(sorted(held, key=lambda a: (a.p_value, -a.value)))


def _check(maps: Tensor, neighbours: int, most: int, side: int) -> None:
    if maps.ndim not in (4, 5) or maps.shape[1] != 1:
        raise InputError(f"maps: expected (n, 1, h, w) or (n, 1, d, h, w), got shape {tuple(maps.shape)}")
    if not bool(torch.isfinite(maps).all()):
        raise InputError("maps: expected finite attributions, got NaN or infinite values")
    if min(neighbours, most, side) < 1:
        raise InputError(f"neighbours, most, side: expected numbers >= 1, got {neighbours}, {most}, {side}")
    if len(maps) <= max(neighbours, 2):
        raise InputError(f"maps: expected more than {max(neighbours, 2)} of them for the graph, got {len(maps)}")


def _prepared(maps: Tensor, side: int) -> Float[Tensor, "n v"]:
    """Rectified, downsampled maps of Euclidean length one; a map without positive evidence is 0."""
    small = coarse(maps.double().clamp_min(0), side)
    return F.normalize(small.flatten(1), dim=1, eps=1e-300)


def _affinity(points: Float[Tensor, "n v"], neighbours: int) -> Float[Tensor, "n n"]:
    """Half a link from each map to each of its neighbours: 1 where both are neighbours of each other."""
    distance = torch.cdist(points, points).fill_diagonal_(torch.inf)
    nearest = distance.topk(neighbours, dim=1, largest=False).indices
    links = torch.zeros_like(distance).scatter_(1, nearest, 1.0)
    return (links + links.T) / 2


def _spectrum(a: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"], Float[Tensor, " n"]]:
    """Eigenvalues and eigenvectors of the normalised Laplacian, and the degrees."""
    degree = a.sum(1)
    scale = degree.rsqrt()
    laplacian = torch.eye(len(a), dtype=a.dtype) - scale[:, None] * a * scale
    values, vectors = torch.linalg.eigh(laplacian)
    return values.clamp(0, 2), vectors, degree


def _kmeans(points: Float[Tensor, "n d"], k: int, seed: int) -> Int[Tensor, " n"]:
    """Lloyd's iteration from several k-means++ starts at once; the labels of the one with least distortion."""
    centres = _starts(points, k, seed)
    labels = torch.full((_RESTARTS, len(points)), -1)
    for _ in range(_ITERATIONS):
        before, labels = labels, torch.cdist(points, centres).argmin(2)
        if torch.equal(before, labels):
            break
        hot = F.one_hot(labels, k).to(points)
        count = hot.sum(1)[..., None]
        centres = torch.where(count > 0, hot.mT @ points / count.clamp_min(1), centres)
    return labels[torch.cdist(points, centres).amin(2).square().sum(1).argmin()]


def _starts(points: Float[Tensor, "n d"], k: int, seed: int) -> Float[Tensor, "restarts k d"]:
    """Centres drawn among the points, each with probability in the squared distance to those before it."""
    u = uniform((k,), seed=seed, row=torch.arange(_RESTARTS), stream=0).double()
    chosen = (u[:, :1] * len(points)).long()
    for j in range(1, k):
        near = torch.cdist(points, points[chosen]).amin(2).square().cumsum(1)
        place = torch.searchsorted(near, u[:, j : j + 1] * near[:, -1:], right=True)
        chosen = torch.cat([chosen, place.clamp(max=len(points) - 1)], 1)
    return points[chosen]


def _largest_first(labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Clusters numbered by falling size, of equals the one with the earliest row first; empty ones have no number."""
    _, labels, count = labels.unique(return_inverse=True, return_counts=True)
    order = sorted(range(len(count)), key=lambda c: (-int(count[c]), int((labels == c).nonzero()[0])))
    return torch.tensor(order).argsort()[labels]


def _associate(labels: Tensor, name: str, column: Tensor, permutations: int, seed: int) -> Association:
    """One column, not yet adjusted for the others."""
    if column.shape != labels.shape:
        raise InputError(f"metadata[{name!r}]: expected one value a map, got shape {tuple(column.shape)}")
    some = ~column.isnan()
    if not bool(some.any()):
        raise InputError(f"metadata[{name!r}]: expected at least one value, got NaN only")
    label, value = labels[some].unique(return_inverse=True)[1], column[some]
    n = len(value)
    orders = shuffles(torch.zeros(n, dtype=torch.long), draws=permutations, seed=seed)
    orders = torch.cat([torch.arange(n)[None], orders])
    levels, code = value.unique(return_inverse=True)
    categories = not value.is_floating_point() or len(levels) <= 2 or levels_of(value) is not None
    t = _mutual_information(label, code[orders]) if categories else _correlation_ratio(label, value.double()[orders])
    measure: Literal["mutual information", "correlation ratio"]
    measure = "mutual information" if categories else "correlation ratio"
    return Association(name, measure, float(t[0]), permutation_p(float(t[0]), t[1:]), torch.nan, n)


def _mutual_information(label: Int[Tensor, " n"], code: Int[Tensor, "m n"]) -> Float[Tensor, " m"]:
    """Plug-in mutual information in bits of the labels with each row of codes."""
    k, c = int(label.max()) + 1, int(code.max()) + 1
    joint = torch.zeros(len(code), k * c, dtype=torch.float64)
    joint = joint.scatter_add_(1, label * c + code, torch.ones(code.shape, dtype=torch.float64)).view(-1, k, c)
    joint = joint / len(label)
    independent = joint.sum(2, keepdim=True) * joint.sum(1, keepdim=True)
    nats: Tensor = torch.special.xlogy(joint, joint / independent.clamp_min(1e-300)).sum((1, 2))
    return nats.clamp_min(0) / math.log(2)


def _correlation_ratio(label: Int[Tensor, " n"], value: Float[Tensor, "m n"]) -> Float[Tensor, " m"]:
    """Variance of the cluster means over the variance of each row of values."""
    hot = one_hot(label)
    value = value - value.mean(1, keepdim=True)
    between = ((value @ hot).square() / hot.sum(0)).sum(1)
    return between / value.square().sum(1)
