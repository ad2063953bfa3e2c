"""Matching against exhaustive search, and probes averaged over matchings."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from cfx.confounder.probes.features import Features
from cfx.confounder.probes.matching import matched_probe, matchings, pooled, standardised_difference, twice_the_median
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform
from cfx.core.statistics import Estimate

CALIPERS = {"age": 3.0, "sex": 0.0}


def people(n: int = 120, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Cases are older."""
    u = uniform((3,), seed=seed, row=torch.arange(n), stream=0)
    age = (50 + 40 * u[:, 0]).round()
    return u[:, 1] < (age - 45) / 90, {"age": age, "sex": u[:, 2] < 0.5}


def test_the_first_matching_is_the_best_there_is() -> None:
    case = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0]).bool()
    for seed in range(20):
        age = (uniform((9,), seed=seed, row=torch.arange(1), stream=0)[0] * 12).double()
        (pairs,) = matchings(case, {"age": age}, {"age": 2.0}, n=1)
        best = (0, 0.0)
        for order in permutations(range(4, 9), 4):
            gaps = [abs(float(age[i] - age[j])) for i, j in enumerate(order)]
            inside = [g for g in gaps if g <= 2]
            best = max(best, (len(inside), -sum(inside)))
        gap = float((age[pairs[:, 0]] - age[pairs[:, 1]]).abs().sum())
        assert (len(pairs), -gap) == pytest.approx(best)


def test_matchings_differ_and_are_all_near_the_best() -> None:
    case, known = people()
    found = matchings(case, known, CALIPERS, n=20, slack=0.25)
    assert len(found) == 20
    assert len({tuple(p.flatten().tolist()) for p in found}) == 20
    gaps = []
    for p in found:
        assert len(p) == len(found[0])
        assert bool(case[p[:, 0]].all())
        assert not bool(case[p[:, 1]].any())
        assert len(p.flatten().unique()) == p.numel()  # nobody twice
        assert torch.equal(known["sex"][p[:, 0]], known["sex"][p[:, 1]])
        gaps.append((known["age"][p[:, 0]] - known["age"][p[:, 1]]).abs())
        assert float(gaps[-1].max()) <= 3
    means = torch.stack(gaps).mean(1) / 3
    assert float(means[0]) <= float(means.min()) + 1e-6
    assert float((means - means[0]).max()) < 0.25


def test_one_seed_one_set_of_matchings() -> None:
    case, known = people()
    a, b, c = (matchings(case, known, CALIPERS, n=5, seed=s) for s in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a, c, strict=True))


def test_where_there_is_one_matching_there_is_one() -> None:
    case = torch.tensor([True, False, True, False])
    found = matchings(case, {"age": torch.tensor([20.0, 21, 60, 61])}, {"age": 3.0})
    assert [p.tolist() for p in found] == [[[0, 1], [2, 3]]]


def test_standardised_difference_in_closed_form() -> None:
    case = torch.tensor([1, 1, 1, 0, 0, 0]).bool()
    assert standardised_difference(torch.tensor([3, 4, 5, 1, 2, 3]), case) == pytest.approx(2.0)
    assert standardised_difference(torch.ones(6), case) == 0.0


def test_matching_takes_away_what_age_explains() -> None:
    """A view that knows age and nothing else tells cases from all controls, not from matched ones."""
    case, known = people(200)
    view = Features("view", known["age"][:, None] + normal((3,), seed=1, row=torch.arange(200), stream=0), True)
    found = matchings(case, known, CALIPERS, n=5)
    result = matched_probe(view, case, known, found, permutations=39)
    assert result.before["age"] > 0.5
    assert abs(result.after["age"]) < 0.15
    assert result.after["sex"] == 0.0
    assert result.p_value > 0.05
    assert result.scores["ba"].low < 0.5 < result.scores["ba"].high
    assert (len(result.results), result.pairs) == (5, len(found[0]))


def test_what_remains_in_pairs_is_found() -> None:
    case, known = people()
    view = Features("view", normal((3,), seed=1, row=torch.arange(120), stream=0) + 2 * case[:, None], True)
    result = matched_probe(view, case, known, matchings(case, known, CALIPERS, n=3), permutations=99)
    assert result.scores["ba"].low > 0.6
    assert result.p_value == 0.02  # twice the least


def test_twice_the_median_holds_for_equal_and_for_independent_p() -> None:
    u = (uniform((21,), seed=0, row=torch.arange(2000), stream=0) * 99 + 1).ceil() / 100
    for p in (u, u[:, :1].expand(-1, 21)):
        combined = torch.tensor([twice_the_median(row) for row in p.tolist()])
        for level in (0.05, 0.2, 0.5):
            assert float((combined <= level).float().mean()) <= level + 3 * (level * (1 - level) / 2000) ** 0.5
    assert twice_the_median([0.01, 0.02, 0.9, 1.0]) == 0.04
    assert twice_the_median([0.9]) == 1.0


def test_rubins_rule_in_closed_form() -> None:
    half = 1.959964 * 0.1
    same = pooled([Estimate(0.6, 0.6 - half, 0.6 + half)] * 4)
    assert same == pytest.approx((0.6, 0.6 - half, 0.6 + half), abs=1e-6)
    apart = pooled([Estimate(v, v, v) for v in (0.5, 0.6, 0.7)])  # between: 4/3 of 0.01, t with 2 degrees of freedom
    assert apart.value == pytest.approx(0.6)
    assert apart.high - 0.6 == pytest.approx(4.302653 * (0.04 / 3) ** 0.5, rel=1e-5)


def test_bad_input_is_named() -> None:
    case, known = people(20)
    with pytest.raises(InputError, match="calipers: expected some of the covariates"):
        matchings(case, known, {"site": 0.0})
    with pytest.raises(InputError, match="case: expected cases and controls"):
        matchings(torch.ones(20, dtype=torch.bool), known, CALIPERS)
    with pytest.raises(InputError, match="finite numbers"):
        matchings(case, {"age": torch.full((20,), float("nan"))}, {"age": 3.0})
    with pytest.raises(InputError, match="expected a number >= 0, got -1"):
        matchings(case, known, {"age": -1.0})
    with pytest.raises(InputError, match="calipers: expected at least one control within"):
        matchings(case, {"age": case * 50.0}, {"age": 3.0})
    with pytest.raises(InputError, match="found: expected at least one matching"):
        matched_probe(torch.zeros(20, 2), case, known, [])
    with pytest.raises(InputError, match=r"p: expected p-values in \(0, 1\]"):
        twice_the_median([0.0])
