"""Last layers of a classifier, from pooled features z to logits: a linear one, and those that detectors are trained by.

    linear                       w_k . z + b_k
    inner, cosine, euclidean     h_k(z) / g(z),  g = sigmoid(BN(v . z + c))
    rbf                          log K_k(z) = -|W_k z - e_k|^2 / (2 n sigma^2)

The quotients are those of Hsu et al. (2020), arXiv 2002.11297 (generalised ODIN): h is w_k . z + b_k, the cosine of w_k
and z, or -|w_k - z|^2. By p(y | in, x) = p(y, in | x) / p(in | x) they stand for the joint probability and for that of
being in distribution, which is learnt from cross-entropy alone. The kernels are those of van Amersfoort et al. (2020),
arXiv 2003.02037 (DUQ): W_k takes z to n values, e_k is the centroid of class k there, and the class of the largest
kernel wins, so log K serves as logits.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cfx.core.errors import InputError

QUOTIENTS = ("inner", "cosine", "euclidean")
"""What h may be of a quotient."""


class Quotient(nn.Module):
    """h / g, see the page.

    Args:
        h: One of `QUOTIENTS`.
        in_features: Length of z.
        out_features: Number of logits.
    """

    def __init__(self, h: str, in_features: int, out_features: int) -> None:
        """See the class."""
        super().__init__()
        self.kind, self.in_features, self.out_features = h, in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.bias = nn.Parameter(torch.zeros(out_features)) if h == "inner" else None
        self.g = nn.Sequential(nn.Linear(in_features, 1), nn.BatchNorm1d(1), nn.Sigmoid())

    def h(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """The numerator."""
        if self.kind == "cosine":
            return functional.linear(functional.normalize(z, dim=1), functional.normalize(self.weight, dim=1))
        if self.kind == "euclidean":
            return -(z[:, None] - self.weight).square().sum(2)
        return functional.linear(z, self.weight, self.bias)

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Logits."""
        logits: Tensor = self.h(z) / self.g(z)
        return logits


class Rbf(nn.Module):
    """Logarithms of radial kernels round one centroid a class, see the page; trained by the objective `duq` alone.

    Args:
        in_features: Length of z.
        out_features: Number of classes.
        width: n, length of a centroid.
        sigma: Length scale, positive, in units of the root mean square of W_k z - e_k.

    Attributes:
        centroids: e_k of every class.
        moves: Training steps that have moved them.

    Raises:
        InputError: a length scale that is not positive.
    """

    centroids: Tensor
    moves: Tensor

    def __init__(self, in_features: int, out_features: int, width: int = 64, sigma: float = 0.1) -> None:
        """See the class."""
        super().__init__()
        if not sigma > 0:
            raise InputError(f"sigma: expected a positive length scale, got {sigma}")
        self.in_features, self.out_features, self.sigma = in_features, out_features, sigma
        self.weight = nn.Parameter(torch.empty(out_features, width, in_features))
        nn.init.normal_(self.weight, std=(2 / in_features) ** 0.5)
        self.register_buffer("centroids", torch.zeros(out_features, width))
        self.register_buffer("moves", torch.zeros((), dtype=torch.long))

    def embed(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k n"]:
        """W_k z of every class."""
        return torch.einsum("knd,bd->bkn", self.weight, z)

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Logarithms of the kernels, at most 0."""
        return -(self.embed(z) - self.centroids).square().mean(2) / (2 * self.sigma**2)


def head(spec: str | Mapping[str, Any], in_features: int, out_features: int) -> nn.Module:
    """A new last layer.

    Args:
        spec: `linear`, one of `QUOTIENTS`, or `rbf`; or a mapping of its `name` and keywords (`rbf`: `width`, `sigma`).
        in_features: Length of the pooled features.
        out_features: Number of logits.

    Raises:
        InputError: no head of that name, or a keyword that it does not take.
    """
    keywords = {"name": spec} if isinstance(spec, str) else dict(spec)
    name, known = keywords.pop("name", None), {"linear": (), "rbf": ("width", "sigma")} | dict.fromkeys(QUOTIENTS, ())
    if name not in known:
        raise InputError(f"head: expected one of {sorted(known)}, got {name!r}")
    if unknown := sorted(set(keywords) - set(known[name])):
        raise InputError(f"head {name}: unknown keys {unknown}; expected some of {list(known[name])}")
    if name == "rbf":
        return Rbf(in_features, out_features, **keywords)
    return nn.Linear(in_features, out_features) if name == "linear" else Quotient(name, in_features, out_features)
