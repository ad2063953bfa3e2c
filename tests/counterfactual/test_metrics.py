"""Known answers of the metrics on hand-made results."""

from dataclasses import replace

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.values import Cohort, Counterfactuals, Verdict
from cfx.counterfactual.metrics import TRUE_EFFECT, evaluate


def result_of(x: torch.Tensor, x_cf: torch.Tensor, reached: list[bool]) -> Counterfactuals:
    n = len(x)
    zero, ones = torch.zeros(n, dtype=torch.long), torch.ones(n)
    probs = torch.tensor([0.2, 0.8]).expand(n, 2)
    return Counterfactuals(
        x=x,
        x_cf=x_cf,
        target=zero + 1,
        probs_before=probs.flip(1),
        probs_after=probs,
        mask=(x != x_cf),
        margin=ones,
        margin_after=torch.tensor([1.5 if r else 0.5 for r in reached]),
        strength=ones,
        verdict=torch.tensor([int(Verdict.FLIPPED if r else Verdict.BUDGET) for r in reached]),
        row=torch.arange(n),
        nfe_forward=zero + 10,
        nfe_backward=zero,
        nfe_classifier=zero + 3,
        nfe_classifier_backward=zero + 4,
        depth="typical",
        seed=0,
        seconds=2.0,
    )


@pytest.fixture
def truth() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.zeros(4, 1, 8, 8)
    x_true = x.clone()
    x_true[:, :, 2:4, 2:6] = 0.5
    return x, x_true


def test_the_true_counterfactual_has_no_error_and_perfect_localisation(truth: tuple) -> None:
    x, x_true = truth
    found = evaluate(result_of(x, x_true, [True] * 4), Cohort(x, x_true=x_true))
    assert found["error_to_truth"] == 0
    assert found["error_to_truth_no_edit"] == pytest.approx((0.25 * 8 / 64) ** 0.5)
    assert found["localisation_auprc"] == pytest.approx(1)
    assert found["localisation_base_rate"] == pytest.approx(8 / 64)
    assert found["l1"] == pytest.approx(0.5 * 8 / 64)
    assert found["edited_share"] == pytest.approx(8 / 64)


def test_no_edit_scores_exactly_as_no_edit(truth: tuple) -> None:
    x, x_true = truth
    found = evaluate(result_of(x, x.clone(), [False] * 4), Cohort(x, x_true=x_true))
    assert found["error_to_truth_ratio"] == pytest.approx(1)
    assert found["localisation_auprc"] == pytest.approx(found["localisation_base_rate"])
    assert found["validity"] == 0


def test_every_row_counts(truth: tuple) -> None:
    x, x_true = truth
    found = evaluate(result_of(x, x_true, [True, True, True, False]))
    assert found["validity"] == 0.75
    assert found["n"] == 4
    assert found["seconds_per_image"] == 0.5
    assert "error_to_truth" not in found


def test_oracle_validity_is_the_oracles(truth: tuple) -> None:
    x, x_true = truth
    says = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])
    found = evaluate(replace(result_of(x, x_true, [True] * 4), oracle_probs_before=says, oracle_probs_after=says))
    assert found["oracle_validity"] == 0.25


def test_an_effect_below_the_threshold_is_none(truth: tuple) -> None:
    x, _ = truth
    found = evaluate(result_of(x, x, [True] * 4), Cohort(x, x_true=x + 0.9 * TRUE_EFFECT))
    assert "localisation_auprc" not in found


def test_other_truth_is_refused(truth: tuple) -> None:
    x, x_true = truth
    with pytest.raises(InputError, match="x_true"):
        evaluate(result_of(x, x_true, [True] * 4), Cohort(x[:2], x_true=x_true[:2]))
