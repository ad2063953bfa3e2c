"""Linear readers against the reference, and the honesty of their folds."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from cfx.confounder.probes.features import Features
from cfx.confounder.probes.network import Network
from cfx.confounder.probes.readers import COMPONENTS, Linear, Reader, choose, fit, predict
from cfx.core.random import normal, uniform

N = 40
FOLD = torch.arange(N) % 4


def columns(p: int, seed: int = 0) -> Tensor:
    return normal((p,), seed=seed, row=torch.arange(N), stream=0).double()


def labels(m: int, share: float = 0.4) -> Tensor:
    return (uniform((N,), seed=3, row=torch.arange(m), stream=1) < share).double()


@pytest.mark.parametrize("penalty", [0.3, 0.003])
def test_logistic_regression_equals_scikit_learn(penalty: float) -> None:
    z, y = columns(6), labels(5, 0.3)
    z[:, 0] += 1.5 * y[0]
    beta = fit(z, y, torch.full((5,), penalty, dtype=torch.float64), binary=True)
    for target, b in zip(y, beta, strict=True):
        other = LogisticRegression(C=1 / (N * penalty), tol=1e-10, max_iter=2000).fit(z.numpy(), target.numpy())
        assert b[1:].tolist() == pytest.approx(other.coef_[0].tolist(), abs=2e-3)
        constant = float(b[0] + target.mean().logit())
        assert constant == pytest.approx(float(other.intercept_[0]), abs=2e-3)


def test_ridge_regression_equals_scikit_learn() -> None:
    z, y = columns(6), columns(2, seed=1).T + columns(1).T
    beta = fit(z, y, torch.tensor([0.3, 0.003], dtype=torch.float64), binary=False)
    for target, b, penalty in zip(y, beta, (0.3, 0.003), strict=True):
        other = Ridge(alpha=N * penalty / 2).fit(z.numpy(), target.numpy())
        assert b[1:].tolist() == pytest.approx(other.coef_.tolist(), abs=1e-9)
        assert float(b[0] + target.mean()) == pytest.approx(float(other.intercept_), abs=1e-9)


def test_separable_classes_and_many_columns_converge() -> None:
    z, y = columns(N - 1), labels(50)
    z[:, 0] = 20 * y[0] - 10
    beta = fit(z, y, torch.full((50,), 0.003).double(), binary=True)
    prob = (y.mean(1, keepdim=True).logit() + predict(beta, z)).sigmoid()
    slope = (prob - y) @ z + N * 0.003 * beta[:, 1:]
    assert float(slope.abs().max()) < 1e-5 * N


def test_a_start_changes_no_result() -> None:
    z, y = columns(5), labels(4)
    penalty = torch.full((4,), 0.03).double()
    cold = fit(z, y, penalty, binary=True)
    warm = fit(z, y, penalty, binary=True, start=torch.ones(4, 6).double())
    assert torch.allclose(cold, warm, atol=1e-3)


def readers() -> list[Reader]:
    x = columns(6)
    image = uniform((1, 8, 8), seed=5, row=torch.arange(N), stream=0)
    return [
        Linear.of(Features("few", x)),
        Linear.of(Features("own units", x, standardise=True)),
        Linear.of(Features("many", columns(3 * N))),
        Network(image, channels=(2, 4), steps=3),
    ]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("reader", readers(), ids=lambda r: r.name)
def test_no_model_has_seen_the_target_of_its_fold(reader: Reader, binary: bool) -> None:
    y = labels(2) if binary else columns(2, seed=4).T.contiguous()
    other = torch.where(FOLD == 1, (1 - y if binary else 5 - 2 * y), y)
    a, b = reader(y, FOLD, binary=binary), reader(other, FOLD, binary=binary)
    assert torch.equal(a[:, FOLD == 1], b[:, FOLD == 1])
    assert not torch.equal(a[:, FOLD == 0], b[:, FOLD == 0])


@pytest.mark.parametrize("p", [6, 3 * N])
def test_no_model_has_seen_other_rows_of_its_fold(p: int) -> None:
    x, y = columns(p), labels(1)
    moved = x.clone()
    moved[1] += 30  # row 1 is in fold 1
    a, b = (Linear.of(Features("x", v))(y, FOLD, binary=True) for v in (x, moved))
    rest = (FOLD == 1) & (torch.arange(N) != 1)
    assert torch.allclose(a[:, rest], b[:, rest], atol=1e-6)
    assert not torch.allclose(a[:, FOLD != 1], b[:, FOLD != 1], atol=1e-6)


def test_targets_do_not_see_each_other() -> None:
    reader, y = Linear.of(Features("x", columns(6))), labels(6)
    alone = torch.cat([reader(one[None], FOLD, binary=True) for one in y])
    assert torch.allclose(alone, reader(y, FOLD, binary=True), atol=1e-5)


def test_wide_views_have_the_same_components() -> None:
    x = columns(6)
    wide = torch.cat([x / 2, x / 2, x / 2, x / 2, torch.zeros(N, 3 * N)], 1)  # an isometry
    a, b = (Linear.of(Features("x", v))(labels(3), FOLD, binary=True) for v in (x, wide))
    assert torch.allclose(a, b, atol=1e-5)


def test_units_of_standardised_columns_do_not_matter() -> None:
    x = columns(4)
    scaled = x * torch.tensor([1e-3, 1.0, 50.0, 1e4]) + 7
    a, b = (Linear.of(Features("x", v, standardise=True))(labels(3), FOLD, binary=True) for v in (x, scaled))
    assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("p", [3, 500])
@pytest.mark.parametrize("standardise", [True, False])
def test_rounding_is_no_variation(p: int, standardise: bool) -> None:
    x = torch.full((N, p), 0.1) * (1 + 1e-7 * columns(p).float())
    reader = Linear.of(Features("x", x, standardise=standardise))
    assert bool((reader(labels(3), FOLD, binary=True) == 0).all())


def test_calibrated_log_odds_are_true_and_balanced() -> None:
    y = (torch.arange(4000) % 5 == 0).double()[None]
    s = normal((4000,), seed=0, row=torch.arange(1), stream=0).double() + 2 * y
    for distorted in (s, 10 * s - 7):  # true log-odds of equally frequent values: 2 s - 2
        _, scale, offset = choose(distorted.expand(3, 1, -1), y, binary=True)
        logit = offset + scale * distorted
        assert float((logit - (2 * s - 2)).abs().max()) < 1.5
        assert float((logit - (2 * s - 2)).abs().mean()) < 0.25
    _, scale, offset = choose(-s.expand(3, 1, -1), y, binary=True)
    assert (float(scale), float(offset)) == (0.0, 0.0)


def test_components_are_at_most_so_many() -> None:
    reader = Linear.of(Features("x", columns(N)))
    z = reader._components(FOLD != 0)
    assert z.shape[1] == min(COMPONENTS, int((FOLD != 0).sum()) - 1)
    train = z[FOLD != 0]
    assert torch.allclose(train.mean(0), torch.zeros(z.shape[1]).double(), atol=1e-12)
    covariance = train.T @ train / len(train)
    assert torch.allclose(covariance, torch.diag(covariance.diagonal()), atol=1e-10)
    assert float(covariance[0, 0]) == pytest.approx(1)
