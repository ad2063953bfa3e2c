"""The verdict in words holds what the rows hold: failures, doubts and what is not known included."""

from dataclasses import replace

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.core.statistics import wilson_interval
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.report.words import FAILED, Skill, Tally, classifier, directions, remarks, sentences, skills, tiles, unjudged
from tests.report.hand_made import divided, make

NO_PICTURES = torch.zeros(0)


def of(*verdicts: Verdict) -> Counterfactuals:
    """A result with these verdicts, all of whose rows the oracle gives to the target after the edit alone."""
    result, _ = make(len(verdicts))
    rows = torch.eye(2)[result.target]
    return result.replace(
        verdict=torch.tensor(verdicts), probs_after=rows, probs_before=rows.flip(1),
        oracle_probs_after=rows, oracle_probs_before=rows.flip(1),
    )  # fmt: skip


def said(result: Counterfactuals, cohort: Cohort | None = None, **metrics: float) -> str:
    return " ".join(sentences(Tally(result, cohort, metrics, NO_PICTURES)))


def known(result: Counterfactuals, cohort: Cohort | None = None) -> str:
    return classifier(Tally(result, cohort, {}, NO_PICTURES))


OTHERWISE = "the classifier decides otherwise."
F, A, B, U, R = Verdict.FLIPPED, Verdict.ALREADY, Verdict.BUDGET, Verdict.UNSTABLE, Verdict.REFUSED


@pytest.mark.parametrize(
    ("verdicts", "begins"),
    [
        ([F], "The image was changed so that the classifier decides otherwise. An independent"),
        ([B], f"The image was not changed so that the classifier decides otherwise. It {FAILED[B]}."),
        ([F, F], "All 2 images were changed so that"),
        ([F, B], f"1 of 2 images was changed so that the classifier decides otherwise. The other {FAILED[B]}."),
        ([F, F, U, R], f"2 of 4 images were changed so that {OTHERWISE} Of the other 2, 1 {FAILED[U]}; 1 {FAILED[R]}."),
        ([A, B, B], f"None of the 3 images was changed so that {OTHERWISE} Of these, 2 {FAILED[B]}; 1 {FAILED[A]}."),
    ],
)  # fmt: skip
def test_what_was_changed_and_what_was_not(verdicts: list[Verdict], begins: str) -> None:
    assert said(of(*verdicts)).startswith(begins)


def test_every_verdict_but_the_good_one_has_words() -> None:
    assert set(FAILED) == set(Verdict) - {Verdict.FLIPPED}


def test_the_oracle_is_counted_among_the_flipped_rows_alone() -> None:
    result = of(F, F, F, B, A)
    after, before = result.oracle_probs_after.clone(), result.oracle_probs_before.clone()
    after[0] = after[0].flip(0)  # it disagrees with one
    before[1] = before[1].flip(0)  # and gave another to the target before
    result = result.replace(oracle_probs_after=after, oracle_probs_before=before)
    assert (
        "the oracle, agrees with 2 of these 3 (1 of the flipped it gave to the new class before the change)."
        in said(result)
    )
    tile = tiles(Tally(result, None, {}, NO_PICTURES))[2]
    low, high = wilson_interval(2 / 3, 3)
    assert tile.value == "2 of 3"
    assert f"95 % interval {100 * low:.0f} to {100 * high:.0f} %" in tile.remark


def test_without_an_oracle_that_is_said_and_nothing_claimed() -> None:
    result = of(F, F).replace(oracle_probs_after=None, oracle_probs_before=None)
    assert "No independent network (oracle) was asked" in said(result)
    tile = tiles(Tally(result, None, {}, NO_PICTURES))[2]
    assert (tile.value, tile.remark) == ("-", "not known: no independent network was asked")
    nothing = of(B, A)
    assert "oracle" not in said(nothing)
    assert tiles(Tally(nothing, None, {}, NO_PICTURES))[2].remark == "no row was flipped"


def test_the_size_of_the_change_is_measured_or_that_of_the_pictures_or_not_said() -> None:
    result = of(F, F)
    measured = {"changed_share": 0.031, "changed_share_low": 0.02, "changed_share_high": 0.04}
    assert "The change covers 3.1 % of the pixels on average over all 2 rows." in said(result, **measured)
    assert "2.0 to 4.0 %" in tiles(Tally(result, None, measured, NO_PICTURES))[3].remark
    pictured = Tally(result, None, {}, torch.tensor([0.1, 0.3]))
    assert "The change covers 20 % of the pixels on average over the 2 rows pictured below." in sentences(pictured)
    assert "covers" not in said(result)
    assert tiles(Tally(result, None, {}, NO_PICTURES))[3].remark == "not measured"
    volume = make(2, (4, 4, 4))[0]
    assert "of the voxels" in said(volume, changed_share=0.1)


def labelled(right: int, wrong: int, other: int = 0) -> tuple[Counterfactuals, Cohort]:
    """Rows whose input is rightly or wrongly classified, and some whose label is no class."""
    result, cohort = make(right + wrong + other)
    n = len(result)
    target = torch.arange(n) % 2
    predicted = torch.eye(2)[1 - target]
    y = torch.cat([1 - target[:right], target[right : right + wrong], torch.full((other,), -1)])
    return result.replace(target=target, probs_before=predicted), replace(cohort, y=y)


def test_whether_the_classifier_is_any_good_is_read_off_labels() -> None:
    found = known(*labelled(36, 4, 3))
    low, high = wilson_interval(0.9, 40)
    interval = f"95 % interval {100 * low:.0f} to {100 * high:.0f} %"
    assert found == (
        f"Of the 40 labelled images here it decides 90 % rightly ({interval}; always the commonest answer: 50 %)."
    )


@pytest.mark.parametrize(("right", "wrong"), [(20, 20), (5, 35), (3, 1), (0, 4)])
def test_a_classifier_that_may_be_guessing_is_not_praised(right: int, wrong: int) -> None:
    assert "rightly, which is not shown to be better than guessing (" in known(*labelled(right, wrong))


@pytest.mark.parametrize("y", [None, torch.full((4,), -1), torch.full((4,), 9), torch.ones(4, 2)])
def test_without_labels_of_its_classes_it_is_not_known(y: torch.Tensor | None) -> None:
    result, cohort = make(4)
    cohort = replace(cohort, y=y, classes=[])
    assert known(result, cohort).startswith("That could not be told: there are no labelled images of its classes")
    measured = Tally(result, cohort, {"competence": 0.61}, NO_PICTURES)
    assert (classifier(measured), skills(measured)) == ("", [Skill("reference images", "0.61", "-", "-")])


def test_a_row_without_an_answer_is_not_right() -> None:
    result, cohort = labelled(4, 0)
    result = result.replace(probs_before=result.probs_before.clone().index_fill_(0, torch.tensor([1]), float("nan")))
    assert "decides 75 % rightly" in known(result, cohort)


def test_skills_are_those_on_the_reference_and_on_the_images() -> None:
    metrics = {"competence": 0.61, "competence_low": 0.48, "competence_high": 0.72, "auc": 0.66, "ece": 0.204}
    metrics |= {f"data_{name}": value for name, value in metrics.items()} | {"data_auc": 0.9999, "data_ece": 0.0}
    assert skills(Tally(of(F), None, metrics, NO_PICTURES)) == [
        Skill("reference images", "0.61 [0.48, 0.72]", "0.66", "0.2"),
        Skill("these images", "0.61 [0.48, 0.72]", ">0.99", "0"),
    ]
    assert skills(Tally(of(F), None, {}, NO_PICTURES)) == []


def test_a_run_that_was_not_judged_says_why_and_nothing_of_what_is_read() -> None:
    result, _ = divided()
    reasons = {"competence": "near chance", "generator": "draws noise"}
    stood = result.replace(standing={"reasons": reasons, "remarks": {"consent": "little"}})
    t = Tally(stood, None, {"judged": False}, NO_PICTURES)
    assert (unjudged(t), remarks(t)) == (["near chance", "draws noise"], ["little"])
    assert "reads" not in " ".join(sentences(t))
    assert "That speaks of the generator" in " ".join(sentences(t))
    assert (tiles(t)[1].value, tiles(t)[1].remark) == ("-", "not judged")
    t = Tally(stood.replace(standing=stood.standing | {"anyway": True}), None, {"judged": True}, NO_PICTURES)
    assert (unjudged(t), remarks(t)) == ([], ["little", "near chance", "draws noise"])
    t = Tally(result, None, {"judged": False, "why": "as it says", "remarks": "so there"}, NO_PICTURES)
    assert (unjudged(t), remarks(t)) == (["as it says"], ["so there"])
    for judged in ({"judged": True}, {"judged": 256}, {"judged": None}, {}):
        t = Tally(result, None, judged, NO_PICTURES)
        assert (unjudged(t), remarks(t)) == ([], [])
        assert "In 2 of 6 rows the classifier reads only part of the change" in " ".join(sentences(t))


def test_how_much_is_read_has_a_tile() -> None:
    tile = tiles(Tally(divided()[0], None, {}, NO_PICTURES))[1]
    assert (tile.value, tile.name) == ("44 %", "of the change is read")
    assert tile.remark.endswith("mean of 6 rows: carried 2, redundant 2, whole 2")
    assert tiles(Tally(make()[0], None, {}, NO_PICTURES))[1].remark == "not measured"


def test_rows_of_one_subject_are_counted_once_in_an_interval() -> None:
    result, cohort = of(*[F] * 8, *[B] * 4), make(12)[1]
    alone = tiles(Tally(result, cohort, {}, NO_PICTURES))[0].remark
    twins = tiles(Tally(result, replace(cohort, ids=tuple("aabbccddeeff")), {}, NO_PICTURES))[0].remark
    low, high = wilson_interval(8 / 12, 6)
    assert f"{100 * low:.0f} to {100 * high:.0f} %, counting each of 6 subjects once" in twins
    assert "subjects" not in alone


def test_directions_count_every_row_with_an_answer() -> None:
    result, _ = make(10)  # targets alternate; rows 4 and 9 have no answer
    found = directions(Tally(result, None, {}, NO_PICTURES), {0: "healthy"})
    assert found == [("healthy → 1", "1 of 4", "0 of 1"), ("1 → healthy", "1 of 4", "1 of 1")]


def test_what_the_gate_says_is_counted_among_the_edited() -> None:
    result = of(F, F, F, A)
    p = [torch.tensor(v, dtype=torch.float64) for v in ([0.01, 0.2, 0.03, torch.nan], [0.6, 0.04, 0.5, 0.01])]
    assert "gate" not in said(result)
    assert "(p at most 0.05): 2 of 3 edited images; before the edit it was 1 of them." in said(
        result.replace(gate_p=p[0], gate_p_before=p[1])
    )
    assert "gate" not in said(result.replace(gate_p=p[0] * torch.nan, gate_p_before=p[1]))
