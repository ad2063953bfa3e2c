"""Random orders of the rows of x that keep its dependence on z: the conditional permutation distribution.

An order pi, which gives row i the value x_pi(i), is to be as probable as under q(x | z), proportional to
prod_i q(x_pi(i) | z_i). A chain gets there by sweeps over disjoint pairs (i, j), which swap what they hold, x_a at i
and x_b at j, with the odds

    q(x_b | z_i) q(x_a | z_j) / (q(x_a | z_i) q(x_b | z_j)) = exp((u_i - u_j) . (v_b - v_a)),   q = h(x) g(z) e^(u . v).

Every model here has that form, with u a function of z and v one of x: neither h nor an n x n matrix of likelihoods is
needed. From the observed order one chain runs back to a hub, and m independent ones from there, so that under q the
m + 1 orders are exchangeable however few the sweeps.

References: Berrett, Wang, Barber, Samworth (2020), "The conditional permutation test for independence while controlling
for confounders", section 3 and algorithm 1; Besag and Clifford (1989), "Generalized Monte Carlo significance tests".
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from cfx.core.random import uniform

_COINS = 1 << 23  # coins tossed at a time, of independent chains
_IMPOSSIBLE = -700.0  # logarithm that stands for probability 0: no swap is ever drawn at these odds


MOST_LEVELS = 10
"""Up to this many different values a column of numbers may be codes of categories (sites, scanners, grades)."""

_LEVEL_ROWS = 5  # rows a level, on average, from which its share can be told


def levels_of(x: Shaped[Tensor, " n"]) -> Shaped[Tensor, " k"] | None:
    """The values of a column that may be codes: few, and with rows enough; else None. NaN is no value.

    Whether 0, 1, 2 are numbers or sites no column says. As numbers alone, codes can hide what they tell: the mean of
    sites 0 and 2 is site 1.
    """
    found = x[~x.isnan()].unique()
    return found if 2 <= len(found) <= MOST_LEVELS and len(x) >= _LEVEL_ROWS * len(found) else None


def classes_of(x: Shaped[Tensor, "n ..."]) -> Int[Tensor, " n"] | None:
    """Class of each row of a variable of integers or booleans (of several columns: their combination), else None."""
    if x.is_floating_point():
        return None
    classes: Tensor = x.reshape(len(x), -1).unique(dim=0, return_inverse=True)[1]
    return classes


def one_hot(classes: Int[Tensor, " n"]) -> Float[Tensor, "n k"]:
    """Columns of 0 and 1, float64."""
    return F.one_hot(classes).double()


def columns_of(x: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n p"]:
    """A variable as columns, float64: a categorical one has a column of 0 and 1 a class."""
    classes = classes_of(x)
    return x.reshape(len(x), -1).double() if classes is None else one_hot(classes)


def standardised(x: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n p"]:
    """Its columns with mean 0 and variance 1; those that never vary are left out."""
    columns = columns_of(x)
    mean, spread = columns.mean(0), columns.std(0)
    varies = spread > 1e-12 * columns.abs().amax(0)
    return ((columns - mean) / spread)[:, varies]


def design(z: Shaped[Tensor, "n ..."]) -> Float[Tensor, "n r"]:
    """Orthonormal basis of the span of 1 and z."""
    columns = standardised(z)
    columns = torch.cat([torch.ones(len(z), 1, dtype=torch.float64), columns], 1)
    basis, size, _ = torch.linalg.svd(columns, full_matrices=False)
    kept: Tensor = basis[:, size > 1e-9 * size[0]]
    return kept


def conditional_orders(
    x: Shaped[Tensor, "n ..."], z: Shaped[Tensor, "n ..."], *, draws: int, sweeps: int, seed: int
) -> Int[Tensor, "draws n"]:
    """Orders of the rows of x that are exchangeable with the observed one if x | z follows the model of `describe`.

    All chains share the pairs of a sweep, which the way to the hub takes in reverse; the coins are each chain's own.

    Args:
        x: The variable that is permuted; integers and booleans are categories.
        z: What its distribution may depend on.
        draws: Number of orders.
        sweeps: Sweeps between the hub and each of them.
        seed: Seed of pairs and coins.
    """
    n = len(x)
    u, v = _model(x, z)
    order = uniform((n,), seed=seed, row=torch.arange(sweeps), stream=0).argsort(dim=1, stable=True)
    pairs = order[:, : n - n % 2].reshape(sweeps, 2, -1)
    hub = _chains(torch.arange(n)[None], torch.zeros(1, dtype=torch.long), pairs.flip(0), u, v, seed)
    parts = torch.arange(1, draws + 1).split(max(1, _COINS // (sweeps * n)))
    return torch.cat([_chains(hub.repeat(len(part), 1), part, pairs, u, v, seed) for part in parts])


def describe(x: Shaped[Tensor, "n ..."], z: Shaped[Tensor, "n ..."]) -> str:
    """The model of x given z in words; it follows from what is a number and what a category."""
    if x.is_floating_point():
        return "linear Gaussian" if z.is_floating_point() else "Gaussian of each class"
    return "multinomial logit" if z.is_floating_point() else "frequencies"


def _chains(
    order: Int[Tensor, "m n"],
    chain: Int[Tensor, " m"],
    pairs: Int[Tensor, "sweeps 2 half"],
    u: Tensor,
    v: Tensor,
    seed: int,
) -> Int[Tensor, "m n"]:
    """Offer every pair of every sweep a swap, which leaves the distribution of orders as it is."""
    coins = uniform(pairs[:, 0].shape, seed=seed, row=chain, stream=1) + 2.0**-25  # never 0
    order = order.clone()
    for (i, j), coin in zip(pairs, coins.unbind(1), strict=True):
        a, b = order[:, i], order[:, j]
        odds = ((u[i] - u[j]) * (v[b] - v[a])).sum(-1)
        swap = coin < odds.sigmoid()
        order[:, i], order[:, j] = torch.where(swap, b, a), torch.where(swap, a, b)
    return order


def _model(x: Tensor, z: Tensor) -> tuple[Float[Tensor, "n r"], Float[Tensor, "n r"]]:
    """The vectors u and v of q(x | z), fitted to these rows."""
    of, given = classes_of(x), classes_of(z)
    if of is None:
        return _gaussian_linear(standardised(x), z) if given is None else _gaussian_classes(standardised(x), given)
    hot = one_hot(of)
    if given is None:
        return _multinomial(hot, design(z)), hot
    counts = one_hot(given).T @ hot
    return (counts / counts.sum(1, keepdim=True)).log().clamp_min(_IMPOSSIBLE)[given], hot


def _covariance(rest: Tensor, towards: Tensor | None = None) -> Float[Tensor, "p p"]:
    """Covariance with p + 1 rows' worth of another one mixed in: of the pooled rows, or of independent columns."""
    n, p = rest.shape
    own = rest.T @ rest
    towards = torch.diag(own.diagonal() / n + 1e-6) if towards is None else towards
    mixed: Tensor = (own + (p + 1) * towards) / (n + p + 1)
    return mixed


def _gaussian_linear(x: Float[Tensor, "n p"], z: Tensor) -> tuple[Tensor, Tensor]:
    """Of x | z ~ N(B z, S): u = S^-1 B z, v = x."""
    basis = design(z)
    mean = basis @ (basis.T @ x)
    return torch.linalg.solve(_covariance(x - mean), mean.T).T, x


def _gaussian_classes(x: Float[Tensor, "n p"], z: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Of x | z ~ N(mu_z, S_z): u marks the class, v has the log-density in each."""
    hot = one_hot(z)
    means = hot.T @ x / hot.sum(0)[:, None]
    rest = x - means[z]
    pooled = _covariance(rest)
    factors = torch.stack([torch.linalg.cholesky(_covariance(rest[z == k], pooled)) for k in range(len(means))])
    white = torch.linalg.solve_triangular(factors, (x[None] - means[:, None]).mT, upper=False)
    log_density = -0.5 * white.square().sum(1) - factors.diagonal(dim1=1, dim2=2).log().sum(1, keepdim=True)
    return hot, log_density.T


def _multinomial(
    hot: Float[Tensor, "n k"], z: Float[Tensor, "n r"], *, penalty: float = 0.1, steps: int = 50
) -> Float[Tensor, "n k"]:
    """Logits of a multinomial regression of classes on the columns of z, by Newton's method with halved steps."""
    n, k = hot.shape
    z = z * n**0.5  # columns of unit mean square
    eye = penalty * torch.eye(z.shape[1] * k, dtype=z.dtype)
    beta = torch.zeros(z.shape[1], k, dtype=z.dtype)

    def loss(b: Tensor) -> Tensor:
        return -(hot * (z @ b).log_softmax(1)).sum() + 0.5 * penalty * b.square().sum()

    for _ in range(steps):
        prob = (z @ beta).softmax(1)
        weight = torch.diag_embed(prob) - prob[:, :, None] * prob[:, None]
        hessian = torch.einsum("na,nkl,nb->akbl", z, weight, z).reshape(eye.shape) + eye
        slope = z.T @ (prob - hot) + penalty * beta
        step = torch.linalg.solve(hessian, slope.flatten()).view_as(beta)
        size = next((t for t in (1.0, 0.5, 0.25, 0.1, 0.01) if loss(beta - t * step) <= loss(beta)), 0.0)
        beta = beta - size * step
        if size * step.abs().max() < 1e-8:
            break
    return z @ beta
