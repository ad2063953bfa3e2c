"""Scores of held-out predictions against scikit-learn, and intervals over cells rather than subjects."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn import metrics
from torch import Tensor

from cfx.confounder.probes.heldout import BINARY, CONTINUOUS, HeldOut, estimate, score_of
from cfx.core.errors import InputError

N = 60


def held(binary: bool, repeats: int = 1, seed: int = 0) -> HeldOut:
    g = torch.Generator().manual_seed(seed)
    target = torch.randn(N, generator=g, dtype=torch.float64)
    target = (target > 0.3).double() if binary else target
    prediction = target + 1.5 * torch.randn(repeats, N, generator=g, dtype=torch.float64) - 0.4
    base = torch.zeros(repeats, N, dtype=torch.float64) + (0.0 if binary else 0.2)
    return HeldOut(target, binary, base, prediction, torch.arange(N))


def score(name: str, p: HeldOut, w: Tensor) -> Tensor:
    return score_of(name, p.binary)(p, w)


def one(p: HeldOut) -> HeldOut:
    (only,) = p.repeats()
    return only


ONES = torch.ones(1, N, dtype=torch.float64)


def test_binary_scores_are_those_of_scikit_learn() -> None:
    p = one(held(True))
    y, z = p.target.numpy(), p.prediction.numpy()
    expected = {
        "tpr": metrics.recall_score(y, z > 0), "tnr": metrics.recall_score(y, z > 0, pos_label=0),
        "ba": metrics.balanced_accuracy_score(y, z > 0), "auc": metrics.roc_auc_score(y, z),
    }  # fmt: skip
    both = torch.where(p.target == 1, 0.5 / p.target.sum(), 0.5 / (1 - p.target).sum())
    expected["bits"] = 1 - metrics.log_loss(
        y, torch.sigmoid(p.prediction).numpy(), sample_weight=both.numpy()
    ) / math.log(2)
    assert {name: float(score(name, p, ONES)) for name in BINARY} == pytest.approx(expected)


def test_scores_of_numbers_are_those_of_scikit_learn() -> None:
    p = one(held(False))
    y, z = p.target.numpy(), (p.base + p.prediction).numpy()
    without = float((p.target - 0.2).square().mean())
    error = metrics.mean_squared_error(y, z)
    assert float(score("r2", p, ONES)) == pytest.approx(1 - error / without)
    assert float(score("bits", p, ONES)) == pytest.approx(math.log2(without / error) / 2)
    assert float(score("correlation", p, ONES)) == pytest.approx(
        float(torch.corrcoef(torch.stack([p.target, p.prediction]))[0, 1])
    )


@pytest.mark.parametrize(("binary", "name"), [*((True, k) for k in BINARY), *((False, k) for k in CONTINUOUS)])
def test_a_weight_of_two_is_a_subject_twice(binary: bool, name: str) -> None:
    p, count = one(held(binary)), torch.randint(4, (N,), generator=torch.Generator().manual_seed(1))
    twice = replace(p, **{k: getattr(p, k).repeat_interleave(count) for k in ("target", "base", "prediction", "cell")})
    ones = torch.ones(1, int(count.sum()), dtype=torch.float64)
    assert float(score(name, p, count[None].double())) == pytest.approx(float(score(name, twice, ones)))


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (0.0, {"tnr": 0.5, "tpr": 0.5, "ba": 0.5, "auc": 0.5, "bits": 0.0}),  # no decision is half right
        (-9.0, {"tnr": 1.0, "tpr": 0.0, "ba": 0.5, "auc": 0.5}),
        (40.0, {"tnr": 1.0, "tpr": 1.0, "ba": 1.0, "auc": 1.0, "bits": 1.0}),  # all there is to know is 1 bit
    ],
)
def test_who_knows_nothing_and_who_knows_all(prediction: float, expected: dict[str, float]) -> None:
    p = one(held(True))
    sign = 2 * p.target - 1 if prediction > 0 else torch.ones_like(p.target)
    p = replace(p, prediction=prediction * sign)
    assert {name: float(score(name, p, ONES)) for name in expected} == pytest.approx(expected)


def test_a_resample_without_a_value_of_the_target_is_chance() -> None:
    p = one(held(True))
    only = (1 - p.target)[None]
    assert [float(score(name, p, only)) for name in ("tpr", "auc")] == [0.5, 0.5]


def test_a_constant_prediction_correlates_with_nothing() -> None:
    p = one(held(False))
    assert float(score("correlation", replace(p, prediction=torch.ones(N).double()), ONES)) == 0


def test_an_estimate_is_the_mean_over_repeats_and_its_interval_that_of_one() -> None:
    p = held(True, repeats=3)
    each = [float(score("ba", part, ONES)) for part in p.repeats()]
    found = p.estimate("ba")
    assert found.value == pytest.approx(sum(each) / 3)
    assert found.low < found.value < found.high
    assert found == p.estimate("ba")
    narrow = p.estimate("ba", level=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = estimate([lambda w: (w @ values) / w.sum(1)], torch.arange(400))
    error = float(values.std()) / 20
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.08)


def test_subjects_of_one_cell_are_one_piece_of_evidence() -> None:
    p = held(True)
    four = replace(p, **{k: getattr(p, k).repeat_interleave(4, -1) for k in ("target", "base", "prediction")},
                   cell=torch.arange(N).repeat_interleave(4))  # fmt: skip
    assert four.estimate("ba") == p.estimate("ba")
    apart = replace(four, cell=torch.arange(4 * N)).estimate("ba")
    assert apart.high - apart.low < 0.7 * (p.estimate("ba").high - p.estimate("ba").low)


@pytest.mark.parametrize(("binary", "name"), [(True, "r2"), (False, "auc"), (True, "x")])
def test_a_score_of_the_other_kind_is_refused(binary: bool, name: str) -> None:
    with pytest.raises(InputError, match=rf"score: expected one of \[.*\] for this target, got '{name}'"):
        held(binary).estimate(name)
