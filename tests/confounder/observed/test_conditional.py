"""Orders of x that keep its dependence on z: the chain against the exact distribution, and the models it rests on."""

from itertools import permutations

import pytest
import torch
from scipy import stats

from cfx.confounder.observed import conditional
from cfx.confounder.observed.conditional import conditional_orders, describe, design, one_hot, standardised
from cfx.core.random import normal, uniform


def column(n, stream, seed=0):
    return normal((n,), seed=seed, row=torch.arange(1), stream=stream)[0].double()


Y = torch.tensor([0, 0, 1, 1])
Z = torch.tensor([-1.0, -0.3, 0.5, 1.2], dtype=torch.float64)
X = torch.tensor([-0.8, 0.6, 0.1, 1.5], dtype=torch.float64)
K = torch.tensor([0, 1, 1, 0])


@pytest.mark.parametrize(
    ("x", "z"), [(X, Z), (X, Y), (K, Z), (K, Y)], ids=["numbers", "numbers|class", "class|numbers", "classes"]
)
def test_the_chain_draws_every_order_with_its_probability(x, z):
    u, v = conditional._model(x, z)
    every = torch.tensor(list(permutations(range(4))))
    exact = torch.stack([(u * v[o]).sum() for o in every]).softmax(0)
    drawn = conditional_orders(x, z, draws=10000, sweeps=40, seed=3)
    found = torch.stack([(drawn == o).all(1).double().mean() for o in every])
    assert exact.max() > 1.5 / 24 or x is K  # not the uniform distribution
    torch.testing.assert_close(found, exact, atol=0.012, rtol=0)


def test_gaussians_of_each_class_have_the_log_density_ratio_of_the_true_ones():
    n = 40000
    y = torch.arange(n) % 2
    x = torch.stack([y + (1 + y) * column(n, 0), column(n, 1) + 0.5 * column(n, 0)], 1)
    spread = [((1.0, 0.5), (0.5, 1.25)), ((4.0, 1.0), (1.0, 1.25))]
    first, second = (stats.multivariate_normal([m, 0], s).logpdf(x) for m, s in zip((0, 1), spread, strict=True))
    _, v = conditional._model(x, y)
    torch.testing.assert_close(v[:, 1] - v[:, 0], torch.as_tensor(second - first), atol=0.3, rtol=0.05)  # far tails


def test_a_linear_gaussian_has_the_slope_over_the_variance():
    n = 40000
    z = column(n, 0)
    x = torch.stack([2 * z + 0.5 * column(n, 1), column(n, 2)], 1)
    u, v = conditional._model(x, z)
    a, b = torch.tensor([0, 1]), torch.tensor([2, 3])
    found = ((u[a] - u[b]) * (v[b] - v[a])).sum(1)
    exact = (z[a] - z[b]) * 2 / 0.25 * (x[b, 0] - x[a, 0])
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.1)


def test_a_logit_of_a_binary_number_is_the_frequencies():
    z = (uniform((300,), seed=1, row=torch.arange(1), stream=0)[0] < 0.4).long()
    x = ((uniform((300,), seed=1, row=torch.arange(1), stream=1)[0] * 2 + z).long()).clamp(max=2)
    assert (one_hot(z).T @ one_hot(x))[1, 0] == 0  # a combination that never occurs
    frequencies = (one_hot(z).T @ one_hot(x) / one_hot(z).sum(0)[:, None])[z]
    logits, _ = conditional._model(x, z.double())
    torch.testing.assert_close(logits.softmax(1), frequencies, atol=0.005, rtol=0)


def test_what_never_occurs_is_never_drawn():
    z = torch.arange(60) % 3
    assert (conditional_orders(z, z, draws=50, sweeps=20, seed=0) % 3 == torch.arange(60) % 3).all()


def test_x_that_does_not_depend_on_z_is_permuted_freely():
    x, z = column(200, 0), column(200, 1)
    orders = conditional_orders(x, z, draws=200, sweeps=50, seed=0)
    assert (orders.sort(1).values == torch.arange(200)).all()
    assert (orders != torch.arange(200)).double().mean() > 0.98
    correlation = torch.corrcoef(torch.cat([x[orders], x[None]]))[-1, :-1]
    assert float(correlation.abs().mean()) < 2 * 0.8 / 200**0.5


def test_the_dependence_on_z_is_kept():
    z = column(300, 0)
    x = z + 0.5 * column(300, 1)
    orders = conditional_orders(x, z, draws=100, sweeps=50, seed=0)
    kept = torch.corrcoef(torch.cat([x[orders], z[None]]))[-1, :-1]
    assert float(kept.mean()) == pytest.approx(float(torch.corrcoef(torch.stack([x, z]))[0, 1]), abs=0.03)
    assert float((orders != torch.arange(300)).double().mean()) > 0.9


def test_the_order_in_which_chains_are_run_makes_no_difference(monkeypatch):
    x, z = column(51, 0), column(51, 1)
    whole = conditional_orders(x, z, draws=40, sweeps=10, seed=5)
    monkeypatch.setattr(conditional, "_COINS", 51 * 10 * 7)
    assert torch.equal(conditional_orders(x, z, draws=40, sweeps=10, seed=5), whole)
    assert torch.equal(conditional_orders(x, z, draws=15, sweeps=10, seed=5), whole[:15])


def test_a_design_spans_what_it_should_whatever_the_scale():
    z = torch.stack([1e6 + column(50, 0), 1e-6 * column(50, 1), torch.full((50,), 3.0).double()], 1)
    basis = design(z)
    assert basis.shape == (50, 3)  # the constant column is the intercept
    torch.testing.assert_close(basis.T @ basis, torch.eye(3, dtype=torch.float64))
    rest = standardised(z) - basis @ (basis.T @ standardised(z))
    assert rest.abs().max() < 1e-6


def test_columns_of_integers_are_one_variable_of_combinations():
    a, b = torch.arange(12) % 2, torch.arange(12) % 3
    assert standardised(torch.stack([a, b], 1)).shape == (12, 6)


def test_models_have_names():
    assert describe(X, Y) == "Gaussian of each class"
    assert len({describe(x, z) for x in (X, K) for z in (Z, Y)}) == 4
