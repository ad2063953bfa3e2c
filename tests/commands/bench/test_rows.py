"""Comparisons and directions of the bench on hand-made results."""

import pytest
import torch

from cfx.commands.bench.rows import Measures, _directions, compare, efforts
from cfx.core.cohort import Cohort
from cfx.counterfactual.result import Verdict
from tests.counterfactual.metrics.hand_made import result_of


@pytest.mark.parametrize("part", ["comparison", "direction"])
def test_scans_of_one_subject_are_one_piece_of_evidence(part: str) -> None:
    x = torch.zeros(48, 1, 4, 4)
    person = torch.arange(12).repeat_interleave(4)
    size = 0.02 * (1 + person % 5)[:, None, None, None]
    ours, theirs = result_of(x, x + size), result_of(x, x + 0.06)
    measures = Measures(torch.nn.Identity())
    whose = tuple(f"p{i}" for i in person.tolist())
    found = []
    for cohort in (Cohort(x), Cohort(x, ids=whose)):
        if part == "comparison":
            found.append(compare(ours, theirs, cohort, measures)["l1"])
        else:
            (every,) = _directions(ours, cohort).values()
            found.append({"low": every["l1_low"], "high": every["l1_high"]})
    rows, people = ((f["high"] - f["low"]) for f in found)
    assert people == pytest.approx(2 * rows, rel=0.1)  # the square root of four scans a subject


class TestEfforts:
    def result(self):
        x = torch.zeros(4, 1, 2, 2)
        spent = torch.tensor([10, 20, 30, 40])
        reached = torch.tensor([5.0, 5.0, -5.0, -5.0])
        return result_of(x, x + 0.1).replace(
            nfe_unet_forward=spent, nfe_unet_backward=spent, margin=torch.ones(4), margin_after=reached,
            nfe_to_flip=torch.tensor([4.0, 8.0, 12.0, torch.nan]), verdict=torch.zeros(4, dtype=torch.long),
        )  # fmt: skip

    def test_rows_that_fail_are_counted_apart(self):
        assert efforts(self.result()) == {
            "flip_rate": 0.75,
            "nfe_to_flip": 8.0,
            "nfe_to_margin": 30.0,
            "nfe_failing": 70.0,
        }

    def test_what_nobody_did_has_no_mean(self):
        found = efforts(self.result()[:2])
        assert found["nfe_failing"] is None
        never = self.result().replace(nfe_to_flip=None)
        assert (efforts(never)["flip_rate"], efforts(never)["nfe_to_flip"]) == (0.0, None)

    def test_a_row_that_was_there_already_cost_nothing(self):
        already = self.result().replace(verdict=torch.full((4,), int(Verdict.ALREADY)), nfe_to_flip=None)
        assert efforts(already)["nfe_to_flip"] == 0
