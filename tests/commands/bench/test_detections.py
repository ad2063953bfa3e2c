"""Rows of results: areas as they are defined, intervals over subjects, paired comparisons, maps against base rates."""

import math

import pytest
import torch

from cfx.commands.bench.detections import Found, compare, names, spread, table_rows
from cfx.commands.bench.ladder import INSIDE, Shift
from cfx.core.cohort import Cohort
from cfx.core.scores import auroc
from cfx.ood import OodScores

N = 40
COHORT = Cohort(torch.zeros(1, 1, 4, 4))


def shift(name: str, kind: str | None, development: bool = False) -> Shift:
    return Shift(name, kind, name, development, lambda: COHORT)


SHIFTS = (
    shift(INSIDE, None), shift("mild", "tolerated"), shift("a", "near"), shift("b", "near"),
    shift("dev", "near", True), shift("c", "far"),
)  # fmt: skip
UNITS = {s.name: torch.arange(N) for s in SHIFTS}


def scored(score: torch.Tensor, level: float = 0.05, maps: torch.Tensor | None = None) -> OodScores:
    zero = torch.zeros(len(score), dtype=torch.long)
    nfe = {name: zero for name in OodScores.__dataclass_fields__ if name.startswith("nfe_")}
    p = 1 - score.sigmoid()
    return OodScores(
        score=score, p=p, verdict=(p <= level).long(), row=torch.arange(len(score)), detector="toy", level=level,
        calibrated=19, seconds=torch.ones(len(score)), map=maps, **nfe,
    )  # fmt: skip


def said(distance: float, seed: int = 0, n: int = N) -> dict[str, OodScores]:
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(N, generator=g)
    step = {INSIDE: 0.0, "mild": 0.1, "a": distance, "b": 2 * distance, "dev": 9.0, "c": 9.0}
    return {name: scored((base + by + 0.3 * torch.randn(N, generator=g))[:n]) for name, by in step.items()}


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return table_rows(SHIFTS, {"ours": said(1.0), "weak": said(0.2, n=20), "none": "it failed"}, UNITS, {})


def test_areas_are_those_of_the_scores(rows):
    found = said(1.0)
    score = torch.cat([found[INSIDE].score, found["a"].score])
    assert rows[0]["shift.a.auroc"] == pytest.approx(float(auroc(score, torch.arange(2 * N) >= N)))
    assert rows[0]["auroc_near"] == pytest.approx((rows[0]["shift.a.auroc"] + rows[0]["shift.b.auroc"]) / 2)
    assert rows[0]["auroc_near_min"] == rows[0]["shift.a.auroc"]
    assert rows[0]["auroc_far"] == 1.0
    assert rows[0]["false_alarm_tolerated"] == float(found["mild"].verdict.double().mean())
    assert rows[0]["auroc_beyond"] is None
    assert names(SHIFTS, "near") == ["a", "b"]


def test_a_method_that_failed_and_one_of_fewer_images_have_rows(rows):
    assert [(row["method"], row["n"]) for row in rows] == [("ours", N), ("weak", 20), ("none", 0)]
    assert rows[2] == {"method": "none", "n": 0, "error": "it failed", "comparisons": {}}
    found = rows[1]["comparisons"]["ours"]
    assert found["n"] == 20
    assert found["auroc_near"]["verdict"] == "higher"
    assert 0 < found["auroc_near"]["low"] <= found["auroc_near"]["difference"] <= found["auroc_near"]["high"]


def test_a_method_is_no_better_than_itself():
    found = Found(said(0.5), UNITS)
    assert compare(found, found, SHIFTS)["auroc_near"] == {
        "difference": 0.0, "low": 0.0, "high": 0.0, "verdict": "unclear"
    }  # fmt: skip


def test_subjects_are_drawn_with_all_their_images():
    """Where an image moves with its subject, an AUROC is surer by subject than by rows."""
    found = said(0.5)
    alone = UNITS | {"a": torch.arange(N, 2 * N)}
    by_subject, by_row = (
        spread(found_.subjects(["a"]), lambda w, f=found_: f.areas("a", w))
        for found_ in (Found(found, UNITS), Found(found, alone))
    )
    assert by_subject[1] - by_subject[0] < 0.7 * (by_row[1] - by_row[0])


def test_weights_of_one_are_the_area_itself():
    found = Found(said(0.5), UNITS)
    assert float(found.areas("a", torch.ones(1, N, dtype=torch.float64))) == pytest.approx(found.area("a"))


def test_a_map_is_measured_against_what_was_planted():
    truth = torch.zeros(N, 1, 4, 4, dtype=torch.bool)
    truth[: N // 2, :, 1:3, 1:3] = True
    found = said(1.0)
    for maps, area in ((truth.float(), 1.0), (torch.zeros(N, 1, 4, 4), 0.25)):
        (row,) = table_rows(
            SHIFTS, {"ours": found | {"a": scored(found["a"].score, maps=maps)}}, UNITS, {"a": truth}
        )  # fmt: skip
        assert (row["shift.a.map_auprc"], row["map_base_rate"]) == (pytest.approx(area), 0.25)
    assert "shift.b.map_auprc" not in row
    assert math.isclose(row["map_auprc"], 0.25)
