"""Class priors of unlabelled rows: exact where the shares are, consistent, and covered by their intervals."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.priors import black_box, expectation_maximisation
from cfx.core.statistics import row_weights

CONFUSION = torch.tensor([[0.8, 0.15, 0.1], [0.1, 0.75, 0.1], [0.1, 0.1, 0.8]])  # p(f | y), columns sum to 1


def rows(prior, n, seed):
    """Labels and predictions of a classifier with that confusion."""
    g = torch.Generator().manual_seed(seed)
    y = torch.multinomial(torch.tensor(prior), n, replacement=True, generator=g)
    return y, torch.multinomial(CONFUSION.T[y], 1, generator=g)[:, 0]


def test_exact_shares_give_exact_priors():
    """3 of 4 rows of either class are decided right; of new ones 5 of 8 are given to class 1: q = .75."""
    y, predicted = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
    new = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    torch.testing.assert_close(black_box(predicted, y, new, 2), torch.tensor([[0.25, 0.75]]).double())
    torch.testing.assert_close(black_box(predicted, y, predicted, 2), torch.tensor([[0.5, 0.5]]).double())
    never = black_box(predicted, y, torch.ones(4).long(), 2)  # more than a prior of 1 would give
    torch.testing.assert_close(never, torch.tensor([[0.0, 1.0]]).double())


def test_priors_of_three_classes_and_their_intervals():
    prior, moved = [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]
    covered = torch.zeros(3)
    for seed in range(60):
        y, predicted = rows(prior, 400, seed)
        _, new = rows(moved, 300, 1000 + seed)
        w = [row_weights(n, draws=200, seed=seed + j) for j, n in enumerate((400, 300))]
        low, high = black_box(predicted, y, new, 3, *w).quantile(torch.tensor([0.025, 0.975]).double(), dim=0)
        covered += (low <= torch.tensor(moved)) & (torch.tensor(moved) <= high)
    assert bool((covered / 60 >= 0.85).all())
    torch.testing.assert_close(black_box(predicted, y, new, 3)[0], torch.tensor(moved).double(), atol=0.1, rtol=0)


def test_expectation_maximisation_is_the_largest_likelihood():
    """Two normals, 2 apart: the probabilities are known; the likelihood is compared on a grid."""
    g = torch.Generator().manual_seed(0)
    y = torch.rand(2000, generator=g) < 0.85
    p = torch.sigmoid(2 * (torch.randn(2000, generator=g) + 2 * y - 1)).double()
    found = expectation_maximisation(torch.stack([1 - p, p], 1), torch.tensor([0.5, 0.5]))[0]
    grid = torch.linspace(0.005, 0.995, 199).double()
    likelihood = (2 * (1 - grid)[:, None] * (1 - p) + 2 * grid[:, None] * p).log().sum(1)
    assert float(found[1]) == pytest.approx(float(grid[likelihood.argmax()]), abs=0.005)
    assert float(found[1]) == pytest.approx(0.85, abs=0.03)
    same = expectation_maximisation(torch.stack([1 - p, p], 1), torch.stack([1 - p, p], 1).mean(0))
    torch.testing.assert_close(same[0, 1], p.mean(), atol=1e-3, rtol=0)


def test_weights_count_rows():
    g = torch.Generator().manual_seed(1)
    p, y, f = (
        torch.rand(6, 2, generator=g).softmax(1),
        torch.tensor([0, 1, 0, 1, 0, 1]),
        torch.tensor([0, 1, 1, 1, 0, 0]),
    )
    w, twice = torch.tensor([[2.0, 1, 1, 1, 1, 1]]), torch.tensor([0, 0, 1, 2, 3, 4, 5])
    prior = torch.tensor([0.4, 0.6])
    torch.testing.assert_close(expectation_maximisation(p, prior, w), expectation_maximisation(p[twice], prior))
    torch.testing.assert_close(black_box(f, y, f, 2, w, w), black_box(f[twice], y[twice], f[twice], 2))


def test_what_cannot_be_told_is_refused():
    y = torch.tensor([0, 0, 1])
    with pytest.raises(InputError, match=r"labelled rows of all 3 classes, got none of \[2\]"):
        black_box(y, y, y, 3)
    with pytest.raises(InputError, match="at least one row"):
        black_box(y, y, y[:0], 2)
    with pytest.raises(InputError, match="every class to have some"):
        expectation_maximisation(torch.rand(3, 2), torch.tensor([1.0, 0.0]))
