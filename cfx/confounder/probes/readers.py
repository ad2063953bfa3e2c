"""Linear readers of a view: principal components, then ridge-penalised logistic or linear regression.

All of it happens inside folds, for many targets at once: the permutations of a target share folds, components and
columns, so that a step of a thousand regressions is a few matrix products.

The penalty lambda of each target is chosen by nested cross-validation, on the folds that it trains on:

    minimise sum_i loss(y_i, base + b0 + z_i . b) + n lambda / 2 |b|^2,    base the log-odds or mean of training rows

with z the components over the standard deviation of the first: components of little variance are shrunk most, so that
lambda also says how many there are. The model without folds a and b serves both as inner models: of fold a, judged on
b, and of b, judged on a. The inner predictions also calibrate: a number is regressed on them; of a binary target they
become, by a logistic regression of one column, log-odds of values that are equally frequent, whatever their share. The
model's own constant would not do: where columns are many and one value is rare, it allows for a fit that new rows do
not have, and favours the other value. A slope below 0 says that there is nothing to be known, and counts as 0.

References: Platt (1999), "Probabilistic outputs for support vector machines", for the calibration; Sun and Tran-Dinh
(2019), "Generalized self-concordant functions", for the length of Newton's steps.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.confounder.probes.features import Features
from cfx.core.components import components, coordinates
from cfx.core.scores import class_weights

COMPONENTS = 32
"""Most principal components."""
PENALTIES = (0.3, 0.03, 0.003)
"""Values of lambda, from the largest; of equals the first is taken."""
_ROUNDING = 1e-6  # variation this small, relative to the values, is none
_NONE = 1e-300  # in place of a denominator of 0
_CALIBRATION = 8  # Newton steps
_GRADIENTS = 8  # steps towards a Newton step


@runtime_checkable
class Reader(Protocol):
    """Whatever predicts a target from a view that it holds."""

    @property
    def name(self) -> str:
        """What it reads."""

    def __len__(self) -> int:
        """Number of rows."""

    def __call__(self, y: Float[Tensor, "m n"], fold: Int[Tensor, " n"], *, binary: bool) -> Float[Tensor, "m n"]:
        """Prediction of every row by a model that has not seen its fold, beyond what is known without the view.

        Args:
            y: Targets, each a row of its own: 0 and 1, or numbers.
            fold: Fold of every row.
            binary: Predict log-odds of values that were equally many; else what the mean of the training rows lacks.
        """


def loss(y: Float[Tensor, "*m n"], prediction: Float[Tensor, "*m n"], *, binary: bool) -> Float[Tensor, "*m n"]:
    """Log-loss in nats of log-odds, or squared error."""
    return F.softplus(prediction) - y * prediction if binary else (prediction - y).square()


@dataclass(frozen=True)
class Linear:
    """Principal components and a penalised regression.

    Attributes:
        name: What is read.
        values: Columns `(n, p)`, float64, p at most n unless they have units of their own.
        standardise: Whether they have.
        rounding: Standard deviation that counts as none.
    """

    name: str
    values: Float[Tensor, "n p"]
    standardise: bool
    rounding: float

    @classmethod
    def of(cls, features: Features) -> Self:
        """A reader of features.

        A wide view is replaced by its coordinates in the space that its rows span: an isometry, which changes no
        principal component, whichever rows it is learned from.
        """
        values = features.values
        if features.standardise:
            return cls(features.name, values.double(), True, _ROUNDING)
        rounding = _ROUNDING * float(values.double().norm(dim=1).max())
        if values.shape[1] > len(values):
            values = coordinates(values)
        return cls(features.name, values.double(), False, rounding)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.values)

    def __call__(self, y: Float[Tensor, "m n"], fold: Int[Tensor, " n"], *, binary: bool) -> Float[Tensor, "m n"]:
        """See `Reader`."""
        out = torch.empty_like(y)
        for a, inner in enumerate(self._inner(y, fold, binary)):
            train = fold != a
            penalty, scale, offset = choose(inner[:, :, train], y[:, train], binary=binary)
            z = self._components(train)
            out[:, ~train] = offset + scale * predict(fit(z[train], y[:, train], penalty, binary=binary), z[~train])
        return out

    def _inner(self, y: Tensor, fold: Tensor, binary: bool) -> Float[Tensor, "k penalties m n"]:
        """Predictions of rows outside fold a, at every penalty, by models that have seen neither it nor their own."""
        k = int(fold.max()) + 1
        out = y.new_zeros(k, len(PENALTIES), *y.shape)
        for a, b in combinations(range(k), 2):
            train = (fold != a) & (fold != b)
            z, beta = self._components(train), None
            for i, penalty in enumerate(PENALTIES):
                beta = fit(z[train], y[:, train], y.new_full((len(y),), penalty), start=beta, binary=binary)
                out[a, i][:, fold == b] = predict(beta, z[fold == b])
                out[b, i][:, fold == a] = predict(beta, z[fold == a])
        return out

    def _components(self, train: Bool[Tensor, " n"]) -> Float[Tensor, "n r"]:
        """Principal components of the training rows, of all rows, over the standard deviation of the first."""
        x = self.values
        if self.standardise:
            spread = x[train].std(0, correction=0)
            x = x / spread.where(spread > self.rounding * x.abs().amax(0), torch.inf)
        found = components(x[train], least=self.rounding, share=_ROUNDING, most=COMPONENTS)
        return found.scores(x) / found.spread[:1]


def choose(
    s: Float[Tensor, "penalties m n"], y: Float[Tensor, "m n"], *, binary: bool
) -> tuple[Float[Tensor, " m"], Float[Tensor, "m 1"], Float[Tensor, "m 1"]]:
    """The penalty whose calibrated inner predictions lose least, and their calibration, offset + scale s."""
    weight, left = (class_weights(y), y) if binary else (torch.ones_like(y), y - y.mean(1, keepdim=True))
    centre, spread = s.mean(2, keepdim=True), s.std(2, keepdim=True).clamp_min(_NONE)
    u = (s - centre) / spread
    slope, constant = (
        _logistic(u, y, weight) if binary else ((u * left).mean(2, keepdim=True), torch.zeros_like(u[..., :1]))
    )
    some = slope > 0
    slope, constant = slope * some, constant * some
    best = (weight * loss(left.expand_as(s), constant + slope * u, binary=binary)).sum(2).argmin(0)
    scale, offset = slope / spread, constant - slope * centre / spread
    rows = torch.arange(len(y))
    return torch.tensor(PENALTIES, dtype=torch.float64)[best], scale[best, rows], offset[best, rows]


def _logistic(u: Tensor, y: Tensor, weight: Tensor) -> tuple[Float[Tensor, "l m 1"], Float[Tensor, "l m 1"]]:
    """Slope and constant of weighted logistic regressions on one column each, targets a little off 0 and 1 (Platt)."""
    doubt = 1 / (torch.minimum(y.sum(1), (1 - y).sum(1)) + 2)[:, None]
    goal = doubt + (1 - 2 * doubt) * y
    x = torch.stack([u, torch.ones_like(u)], -1)
    beta = x.new_zeros(*u.shape[:2], 2)
    for _ in range(_CALIBRATION):
        prob = (x @ beta[..., None])[..., 0].sigmoid()
        gradient = ((weight * (prob - goal))[..., None, :] @ x)[..., 0, :]
        curvature = (x * (weight * prob * (1 - prob))[..., None]).mT @ x + 1e-9 * torch.eye(2, dtype=x.dtype)
        step = torch.linalg.solve(curvature, gradient)
        beta = beta - step * descent((x @ step[..., None])[..., 0])
    return beta[..., :1], beta[..., 1:]


def descent(change: Float[Tensor, "*m n"]) -> Float[Tensor, "*m 1"]:
    """How much of a Newton step surely descends, log(1 + d) / d with d the largest change of a row's log-odds."""
    d = change.abs().amax(-1, keepdim=True).clamp_min(1e-12)
    return d.log1p() / d


def predict(beta: Float[Tensor, "m q"], z: Float[Tensor, "n r"]) -> Float[Tensor, "m n"]:
    """Predictions beyond what is known without z."""
    return beta[:, :1] + beta[:, 1:] @ z.T


def fit(
    z: Float[Tensor, "n r"],
    y: Float[Tensor, "m n"],
    penalty: Float[Tensor, " m"],
    *,
    binary: bool,
    start: Float[Tensor, "m q"] | None = None,
) -> Float[Tensor, "m q"]:
    """Coefficients, the constant first, of the penalised regression of each target on z, beyond log-odds or mean.

    Args:
        z: Columns.
        y: Targets.
        penalty: lambda of each target.
        binary: Logistic regression, else linear.
        start: Coefficients to begin with; they change the time it takes, not the result.
    """
    beta = y.new_zeros(len(y), z.shape[1] + 1) if start is None else start.clone()
    return _newton(z, y, penalty, beta) if binary else _ridge(z, y, penalty)


def _ridge(z: Tensor, y: Tensor, penalty: Tensor) -> Float[Tensor, "m q"]:
    """Linear regression, solved in the principal axes of z; the constant is the one of centred columns."""
    found = components(z, share=0.0)
    slope = (y - y.mean(1, keepdim=True)) @ found.scores(z) / (len(z) * (found.variance + penalty[:, None] / 2))
    beta = slope @ found.axes.T
    return torch.cat([-(beta @ found.mean)[:, None], beta], 1)


def _newton(z: Tensor, y: Tensor, penalty: Tensor, beta: Tensor) -> Float[Tensor, "m q"]:
    """Logistic regression by damped Newton steps; targets that have arrived leave."""
    x = torch.cat([z.new_ones(len(z), 1), z], 1)
    ridge = len(z) * penalty[:, None] * (torch.arange(x.shape[1]) > 0)
    known = y.mean(1, keepdim=True).logit()
    live = torch.arange(len(y))
    for _ in range(100):
        prob = (known[live] + beta[live] @ x.T).sigmoid()
        slope = (prob - y[live]) @ x + ridge[live] * beta[live]
        on = slope.abs().amax(1) > 1e-6 * len(z)
        live, prob, slope = live[on], prob[on], slope[on]
        if not len(live):
            break
        step = _solve(x, prob * (1 - prob), ridge[live], slope)
        beta[live] -= descent(step @ x.T) * step
    return beta


def _solve(x: Tensor, d: Float[Tensor, "m n"], ridge: Float[Tensor, "m q"], slope: Tensor) -> Float[Tensor, "m q"]:
    """(x' diag(d) x + diag(ridge))^-1 slope by a few conjugate gradients, which never form the matrix of a target.

    The columns of x are all but orthogonal, so the diagonal preconditions well. Too few steps give the best step of a
    subspace, which descends too.
    """
    diagonal = d @ x.square() + ridge
    step, rest = torch.zeros_like(slope), slope
    scaled = direction = rest / diagonal
    size = (rest * scaled).sum(1, keepdim=True)
    for _ in range(min(_GRADIENTS, x.shape[1])):
        curved = (d * (direction @ x.T)) @ x + ridge * direction
        far = size / (direction * curved).sum(1, keepdim=True).clamp_min(_NONE)
        step, rest = step + far * direction, rest - far * curved
        scaled = rest / diagonal
        before, size = size, (rest * scaled).sum(1, keepdim=True)
        direction = scaled + size / before.clamp_min(_NONE) * direction
    return step
