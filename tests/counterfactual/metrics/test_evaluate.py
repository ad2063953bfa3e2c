"""Known answers of the means on hand-made results."""

from dataclasses import replace

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.counterfactual.metrics import TRUE_EFFECT, evaluate, means
from tests.counterfactual.metrics.hand_made import result_of


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


def test_the_names_that_scripts_read_are_there(truth: tuple) -> None:
    x, x_true = truth
    found = evaluate(result_of(x, x_true), Cohort(x, x_true=x_true), distances=[_Gap()])
    with_interval = {
        "validity", "stable", "l1", "l2", "edited_share", "feature_distance", "nfe_unet_forward", "error_to_truth",
        "error_to_truth_ratio", "localisation_auprc",
    }  # fmt: skip
    alone = {
        "n", "nfe_unet_forward_max", "nfe_unet_backward", "nfe_classifier", "nfe_classifier_backward",
        "seconds_per_image", "error_to_truth_no_edit", "localisation_base_rate",
    }  # fmt: skip
    assert with_interval | alone | {f"{k}{end}" for k in with_interval for end in ("_low", "_high")} <= found.keys()
    assert found["nfe_classifier_backward"] == 4


def test_a_cohort_whose_truth_is_no_change_has_no_ratio(truth: tuple) -> None:
    x, x_true = truth
    found = evaluate(result_of(x, x_true), Cohort(x, x_true=x))
    assert found["error_to_truth"] > 0
    assert "error_to_truth_ratio" not in found


def test_means_pass_over_rows_without_a_meaning() -> None:
    nan = torch.nan
    found = means({"a": torch.tensor([1.0, nan, 3.0]), "b": torch.tensor([nan, nan, nan])})
    assert found["a"] == 2
    assert (found["a_low"], found["a_high"]) == (1, 3)
    assert "b" not in found


class _Gap(torch.nn.Module):
    name = "gap"

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().flatten(1).amax(1)


def test_intervals_are_over_subjects_where_a_subject_has_several_rows() -> None:
    x = torch.zeros(60, 1, 4, 4)
    person = torch.arange(20).repeat_interleave(3)
    x_cf = x + (0.02 * (1 + person % 7))[:, None, None, None]  # a subject's rows change alike
    x_true = x + (0.03 + 0.01 * (person % 5))[:, None, None, None]
    result = result_of(x, x_cf)
    rows = evaluate(result, Cohort(x, x_true=x_true))
    grouped = evaluate(result, Cohort(x, x_true=x_true, ids=tuple(f"p{i}" for i in person.tolist())))
    named = evaluate(result, Cohort(x, x_true=x_true, covariates={"subject": person.double()}))
    assert grouped == named
    single = evaluate(result[::3], Cohort(x, x_true=x_true)[::3])
    for name in ("l1", "error_to_truth", "error_to_truth_ratio"):
        assert grouped[name] == pytest.approx(rows[name])  # the figure is the same
        wide, narrow = (f[f"{name}_high"] - f[f"{name}_low"] for f in (grouped, rows))
        assert wide == pytest.approx(3**0.5 * narrow, rel=0.1)
        assert [grouped[f"{name}{end}"] for end in ("_low", "_high")] == pytest.approx(
            [single[f"{name}{end}"] for end in ("_low", "_high")]
        )


def test_rows_without_a_meaning_leave_their_subject_out() -> None:
    nan = torch.nan
    groups = torch.tensor([4, 4, 9, 9])
    values = torch.tensor([1.0, nan, 3.0, 3.0])
    found = means({"a": values}, groups)
    assert found["a"] == pytest.approx(7 / 3)
    assert (found["a_low"], found["a_high"]) == (1, 3)  # each subject alone is a quarter of the draws


def test_of_p_values_there_is_the_median_and_of_what_is_out_the_share(truth: tuple) -> None:
    x, x_true = truth
    p = [torch.tensor(v, dtype=torch.float64) for v in ([0.01, 0.2, 0.9, torch.nan], [0.6, 0.04, 0.5, 0.01])]
    found = evaluate(replace(result_of(x, x_true), gate_p=p[0], gate_p_before=p[1]))
    assert (found["gate_p"], found["gate_p_before"]) == (0.2, 0.5)
    assert found["gate_out"] == found["gate_out_before"] == pytest.approx(1 / 3)
    assert found["gate_out_low"] < 1 / 3 < found["gate_out_high"]
    assert "gate_p_low" not in found
    untouched = replace(result_of(x, x), gate_p=p[0] * torch.nan, gate_p_before=p[1])
    assert not {"gate_p", "gate_out"} & evaluate(untouched).keys()
