"""Known answers row by row."""

from dataclasses import replace

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.counterfactual.metrics import CHANGED, TRUE_EFFECT, per_row
from cfx.counterfactual.result import Verdict
from tests.counterfactual.metrics.hand_made import result_of

SPACE = (1, 6, 6)


def noise(n: int, stream: int, scale: float = 0.2) -> torch.Tensor:
    return (normal(SPACE, seed=5, row=torch.arange(n), stream=stream) * scale).clamp(-0.5, 0.5)


class Named(torch.nn.Module):
    """A distance that calls itself LPIPS."""

    name = "LPIPS"

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().flatten(1).amax(1)


@pytest.mark.parametrize(("scale", "cosine"), [(1.0, 1.0), (0.25, 1.0), (-0.5, -1.0)])
def test_an_edit_along_the_true_effect(scale: float, cosine: float) -> None:
    x, effect = noise(5, 0), noise(5, 1)
    rows = per_row(result_of(x, x + scale * effect), Cohort(x, x_true=x + effect))
    torch.testing.assert_close(rows["cosine_to_truth"], torch.full((5,), cosine, dtype=torch.float64))
    torch.testing.assert_close(rows["edit_energy"], torch.full((5,), abs(scale), dtype=torch.float64))
    torch.testing.assert_close(
        rows["error_to_truth"], abs(1 - scale) * rows["error_to_truth_no_edit"], atol=1e-6, rtol=0
    )


def test_pythagoras_ties_error_cosine_and_energy_together() -> None:
    x = noise(8, 0)
    rows = per_row(result_of(x, x + noise(8, 2)), Cohort(x, x_true=x + noise(8, 1)))
    c, e = rows["cosine_to_truth"], rows["edit_energy"]
    wanted = rows["error_to_truth_no_edit"] * (1 - 2 * e * c + e**2).sqrt()
    torch.testing.assert_close(rows["error_to_truth"], wanted, atol=1e-6, rtol=0)


def test_no_edit_has_cosine_nought_and_no_effect_has_no_cosine() -> None:
    x = noise(2, 0)
    x_true = x.clone()
    x_true[0] += 0.5
    rows = per_row(result_of(x, x.clone()), Cohort(x, x_true=x_true))
    assert rows["cosine_to_truth"][0] == 0
    assert rows["edit_energy"][0] == 0
    for name in ("cosine_to_truth", "edit_energy", "localisation_auprc", "localisation_base_rate"):
        assert rows[name][1].isnan()
    assert rows["error_to_truth"][1] == 0


def test_shares_count_pixels_once_whatever_the_channels() -> None:
    x = torch.zeros(1, 2, 4, 4)
    x_cf = x.clone()
    x_cf[0, :, 0, 0] = 0.5
    x_cf[0, 1, 0, 1] = -2 * CHANGED
    x_cf[0, 0, 0, 2] = 0.9 * CHANGED
    rows = per_row(result_of(x, x_cf))
    assert rows["edited_share"][0] == 3 / 16
    assert rows["changed_share"][0] == 2 / 16


def test_costs_probabilities_and_verdicts_are_the_rows_own() -> None:
    x = noise(3, 0)
    codes = [Verdict.UNSTABLE, Verdict.REFUSED, Verdict.FLIPPED]
    result = replace(result_of(x, x + 0.1), verdict=torch.tensor(codes), nfe_unet_backward=torch.tensor([5, 6, 7]))
    rows = per_row(result)
    assert rows["stable"][[0, 2]].tolist() == [0, 1]
    assert rows["stable"][1].isnan()
    assert rows["nfe_unet_backward"].tolist() == [5, 6, 7]
    assert rows["probability_change"].tolist() == pytest.approx([0.6] * 3)
    assert all(v.shape == (3,) and v.dtype == torch.float64 for v in rows.values())


def test_rows_that_never_flipped_are_not_stable() -> None:
    x = noise(3, 0)
    rows = per_row(result_of(x, x + 0.1, [False, False, True]))
    assert rows["stable"].isnan().tolist() == [True, True, False]


def test_what_is_read_of_each_edit() -> None:
    x = noise(3, 0)
    result = result_of(x, x + 0.1)
    assert "read_share" not in per_row(result)
    share, rest = torch.tensor([0.9, 0.3, torch.nan]), torch.tensor([0.0, 0.1, torch.nan])
    rows = per_row(replace(result, read_share=share, rest_alone=rest, consent=torch.tensor([1.0, 0.5, torch.nan])))
    assert rows["reading_carried"][:2].tolist() == [0, 1]
    for name in ("reading_carried", "read_share", "rest_alone", "consent"):
        assert rows[name].isnan().tolist() == [False, False, True]


def test_what_is_not_lpips_is_not_called_so() -> None:
    x = noise(3, 0)
    rows = per_row(result_of(x, x + 0.25), distances=[Named()])
    assert rows["feature_distance"].tolist() == pytest.approx([0.25] * 3)
    assert "lpips" not in rows


def test_rows_do_not_depend_on_their_company() -> None:
    x, x_cf, x_true = noise(100, 0), noise(100, 1), noise(100, 2, scale=0.5)
    whole = per_row(result_of(x, x_cf), Cohort(x, x_true=x_true), distances=[Named()])
    part = per_row(result_of(x, x_cf)[70:75], Cohort(x, x_true=x_true)[70:75], distances=[Named()])
    for name, values in part.items():
        torch.testing.assert_close(values, whole[name][70:75], atol=1e-12, rtol=0, equal_nan=True)


def test_lesion_dice_is_of_the_lesion_that_should_have_gone() -> None:
    x = torch.zeros(4, 1, 4, 4)
    lesion = torch.zeros(4, 1, 4, 4, dtype=torch.bool)
    lesion[:3, :, :2, :2] = True
    x_cf = x.clone()
    x_cf[0, :, :2, :2] = 1.1 * TRUE_EFFECT  # all of it
    x_cf[1, :, :2, :] = 1.1 * TRUE_EFFECT  # and as much beside it
    x_cf[2, :, :2, :2] = 0.9 * TRUE_EFFECT  # too little to count
    y = torch.zeros(4, dtype=torch.long)
    rows = per_row(result_of(x, x_cf), Cohort(x, y=y, lesion=lesion, x_true=x_cf[[1]].expand(4, -1, -1, -1)))
    assert rows["lesion_dice"][:3].tolist() == pytest.approx([1, 2 * 4 / 12, 0])
    assert rows["lesion_dice"][3].isnan()
    assert rows["lesion_dice_truth"][0] == pytest.approx(2 * 4 / 12)
    labelled_as_target = per_row(result_of(x, x_cf), Cohort(x, y=y + 1, lesion=lesion))
    assert labelled_as_target["lesion_dice"].isnan().all()
    assert "lesion_dice_truth" not in labelled_as_target


def test_bad_input_is_named() -> None:
    x = noise(3, 0)
    with pytest.raises(InputError, match="result"):
        per_row(result_of(x, x)[:0])
    with pytest.raises(InputError, match="lesion"):
        per_row(result_of(x, x), Cohort(x[:2], lesion=torch.zeros(2, 1, 6, 6, dtype=torch.bool)))


def test_a_gate_counts_edited_rows_alone() -> None:
    x = noise(3, 0)
    result = result_of(x, x + 0.1)
    assert "gate_p" not in per_row(result)
    after, before = (torch.tensor(p, dtype=torch.float64) for p in ([0.05, 0.5, torch.nan], [0.3, 0.05, 0.01]))
    rows = per_row(replace(result, gate_p=after, gate_p_before=before))
    assert rows["gate_out"][:2].tolist() == [1, 0]
    assert rows["gate_out_before"][:2].tolist() == [0, 1]
    for name in ("gate_p", "gate_p_before", "gate_out", "gate_out_before"):
        assert rows[name].isnan().tolist() == [False, False, True]
