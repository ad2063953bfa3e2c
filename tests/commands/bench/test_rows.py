"""Comparisons and directions of the bench on hand-made results."""

import pytest
import torch

from cfx.commands.bench.rows import Measures, _directions, compare
from cfx.core.cohort import Cohort
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
