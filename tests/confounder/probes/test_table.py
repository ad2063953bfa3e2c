"""The table of comparisons: its columns, and when it ticks."""

import pytest

from cfx.confounder.probes.table import HEAD, TICK, comparison
from cfx.core.statistics import Estimate


def scores(tnr: float, tpr: float) -> dict[str, Estimate]:
    ba = (tnr + tpr) / 2
    return {name: Estimate(v, v - 0.1, v + 0.1) for name, v in {"tnr": tnr, "tpr": tpr, "ba": ba}.items()}


@pytest.mark.parametrize(
    ("tnr", "tpr", "p", "tick"),
    [
        (1.0, 0.86, 0.001, TICK),
        (0.35, 0.74, 0.05, TICK),
        (0.35, 0.74, 0.06, ""),
        (0.9, 0.9, 0.2, ""),  # few subjects: high and not shown
        (0.4, 0.5, 0.01, ""),  # below chance
    ],
)
def test_a_line_has_the_columns_of_the_head_and_ticks_where_chance_is_beaten(tnr, tpr, p, tick) -> None:
    line = comparison("IXI", "HCP", scores(tnr, tpr), p)
    assert len(line) == len(HEAD)
    assert line == ["IXI", "HCP", f"{tnr:.2f}", f"{tpr:.2f}", f"{(tnr + tpr) / 2:.2f}", tick]


def test_the_level_is_that_of_the_plan() -> None:
    assert comparison("a", "b", scores(0.8, 0.8), 0.02, alpha=0.01)[-1] == ""
