"""Is a prediction independent of a confounder? Tests on what was observed: labels y, predictions yhat, confounders c.

    partial test   H0: yhat _||_ c | y    a rejection: the predictions know more of c than the labels explain
    full test      H0: y _||_ yhat | c    no rejection: all that the predictions know of y could come from c

Both are conditional permutation tests of x _||_ yhat | z: x is permuted so as to keep its dependence on z
(`observed.conditional`), and the statistic T, the partial R^2 of yhat on x given z, is compared with what the
permutations give: p = (1 + #{T_b >= T}) / (1 + m), valid if x | z follows its model, and never 0.

What a test here can say is observational: c may be associated with yhat and not be its cause.

References: Berrett, Wang, Barber, Samworth (2020), "The conditional permutation test for independence while
controlling for confounders"; Spisak (2022), "Statistical quantification of confounding bias in machine learning
models"; Chaibub Neto et al. (2018), "Using permutations to assess confounding in machine learning applications".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from cfx.confounder.observed.conditional import columns_of, conditional_orders, describe, design, standardised
from cfx.core.errors import InputError
from cfx.core.random import uniform

_VALUES = 1 << 23  # numbers held at a time by the statistic


@dataclass(frozen=True)
class Independence:
    """Outcome of a test of conditional independence.

    Attributes:
        description: What was tested, against what and how, in words.
        statistic: Share of the variance of yhat given z that x explains (ridge R^2), in [0, 1].
        p_value: (1 + b) / (1 + m).
        null: Statistic of each permutation.
        moved: Mean share of the rows whose x a permutation changed; near 0 where z all but determines x, and then the
            test has no power.
        n: Rows.
    """

    description: str
    statistic: float
    p_value: float
    null: Float[Tensor, " m"]
    moved: float
    n: int

    @property
    def permutations(self) -> int:
        """Number of permutations m."""
        return len(self.null)


def partial_confounder_test(
    yhat: Shaped[Tensor, "n ..."],
    y: Shaped[Tensor, "n ..."],
    c: Shaped[Tensor, "n ..."],
    *,
    permutations: int = 999,
    sweeps: int = 50,
    seed: int = 0,
) -> Independence:
    """Test H0: yhat _||_ c | y, by permuting c under a model q(c | y).

    Integer and boolean variables are categories (several columns: their combinations), floating-point ones are numbers.
    q(c | y) is Gaussian for numbers (one mean and covariance a class of y, or linear in a numeric y) and frequencies or
    a multinomial logit for categories. The statistic is linear in c: dependence of another form can go unseen.

    Args:
        yhat: Predictions `(n,)` or `(n, k)`: logits, or predicted classes.
        y: Labels, `(n,)` or `(n, k)`.
        c: Confounders, `(n,)` or `(n, p)`.
        permutations: m.
        sweeps: Sweeps over disjoint pairs between the hub and each permutation.
        seed: Seed of the permutations.

    Raises:
        InputError: other numbers of rows, fewer than 4, non-finite values, a c that never varies, or no permutations.
    """
    _check(permutations, yhat=yhat, y=y, c=c)
    _check_varies(c=c)
    return _conditional("partial: yhat _||_ c | y", c, y, yhat, permutations, sweeps, seed)


def full_confounder_test(
    yhat: Shaped[Tensor, "n ..."],
    y: Shaped[Tensor, "n ..."],
    c: Shaped[Tensor, "n ..."],
    *,
    permutations: int = 999,
    sweeps: int = 50,
    seed: int = 0,
) -> Independence:
    """Test H0: y _||_ yhat | c, by permuting y under a model q(y | c); all else as `partial_confounder_test`."""
    _check(permutations, yhat=yhat, y=y, c=c)
    _check_varies(y=y)
    return _conditional("full: y _||_ yhat | c", y, c, yhat, permutations, sweeps, seed)


def stratified_test(
    x: Shaped[Tensor, "n ..."],
    yhat: Shaped[Tensor, "n ..."],
    strata: Int[Tensor, " n"],
    *,
    permutations: int = 999,
    seed: int = 0,
) -> Independence:
    """Test H0: x _||_ yhat | strata, by permuting x within strata: exact, without any model.

    With x = c and strata = y it checks the partial test of a class label, with x = y and strata = c the full test of a
    categorical confounder. A number has to be cut into strata first, and what varies within them is not controlled.

    Args:
        x: The variable that is permuted, `(n,)` or `(n, p)`.
        yhat: Predictions, `(n,)` or `(n, k)`.
        strata: Rows of one stratum may be exchanged.
        permutations: m.
        seed: Seed of the permutations.

    Raises:
        InputError: as `partial_confounder_test`.
    """
    _check(permutations, x=x, yhat=yhat, strata=strata)
    _check_varies(x=x)
    orders = shuffles(strata, draws=permutations, seed=seed)
    return _compare("stratified: x _||_ yhat | strata", x, strata, yhat, orders)


def shuffles(strata: Int[Tensor, " n"], *, draws: int, seed: int) -> Int[Tensor, "draws n"]:
    """Random orders of the rows that keep every row in its stratum, uniform among such orders."""
    u = uniform((len(strata),), seed=seed, row=torch.arange(draws), stream=0).double()
    _, place = strata.unique(return_inverse=True)
    home = place.argsort(stable=True)
    orders = torch.empty(u.shape, dtype=torch.long)
    orders[:, home] = (place + u).argsort(dim=1)
    return orders


def permutation_p(observed: float, null: Float[Tensor, " m"]) -> float:
    """(1 + #{T_b >= T}) / (1 + m); values equal to within rounding count as ties."""
    return (1 + int((null >= observed - 1e-9 * abs(observed) - 1e-12).sum())) / (1 + len(null))


def _conditional(
    hypothesis: str, x: Tensor, z: Tensor, yhat: Tensor, permutations: int, sweeps: int, seed: int
) -> Independence:
    if sweeps < 1:
        raise InputError(f"sweeps: expected a number >= 1, got {sweeps}")
    orders = conditional_orders(x, z, draws=permutations, sweeps=sweeps, seed=seed)
    return _compare(f"{hypothesis}, model: {describe(x, z)}", x, z, yhat, orders)


def _compare(description: str, x: Tensor, z: Tensor, yhat: Tensor, orders: Int[Tensor, "m n"]) -> Independence:
    """The statistic of the observed order against that of the permuted ones."""
    here = torch.arange(len(x))[None]
    _, value = x.reshape(len(x), -1).unique(dim=0, return_inverse=True)
    t = _explained(standardised(x), design(z), columns_of(yhat), torch.cat([here, orders]))
    return Independence(
        description=description,
        statistic=float(t[0]),
        p_value=permutation_p(float(t[0]), t[1:]),
        null=t[1:],
        moved=float((value[orders] != value).double().mean()),
        n=len(x),
    )


def _check(permutations: int, **variables: Tensor) -> None:
    rows = {name: len(v) for name, v in variables.items()}
    if len(set(rows.values())) > 1 or min(rows.values()) < 4:
        raise InputError(f"{', '.join(rows)}: expected the same rows, at least 4, got {rows}")
    if permutations < 1:
        raise InputError(f"permutations: expected a number >= 1, got {permutations}")
    for name, v in variables.items():
        if v.ndim not in (1, 2):
            raise InputError(f"{name}: expected (n,) or (n, columns), got shape {tuple(v.shape)}")
        if not bool(torch.isfinite(v).all()):
            raise InputError(f"{name}: expected finite values, got NaN or infinite ones")


def _check_varies(**variables: Tensor) -> None:
    for name, v in variables.items():
        if standardised(v).shape[1] == 0:
            raise InputError(f"{name}: expected values that differ between rows, got one value")


def _explained(
    x: Float[Tensor, "n p"], basis: Float[Tensor, "n r"], y: Float[Tensor, "n k"], orders: Int[Tensor, "m n"]
) -> Float[Tensor, " m"]:
    """Ridge R^2 of y on permuted x, both without what the basis explains; 0 where nothing of y is left.

    Each of the p standardised columns has penalty p, the prior by which x as a whole explains half of y.
    """
    n, p = x.shape
    rest = y - basis @ (basis.T @ y)
    total = rest.square().sum()
    if total <= 1e-24 * y.square().sum():
        return torch.zeros(len(orders), dtype=torch.float64)
    found = []
    for part in orders.split(max(1, _VALUES // (n * p))):
        a = x[part]
        a = a - basis @ (basis.T @ a)
        gram, cross = a.mT @ a, a.mT @ rest
        beta = torch.linalg.solve(gram + p * torch.eye(p, dtype=a.dtype), cross)
        found.append((beta * (2 * cross - gram @ beta)).sum((1, 2)) / total)
    return torch.cat(found)
