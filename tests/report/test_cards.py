"""Rows as the report shows them: words, order, and pictures whose pixels are the images'."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from cfx.core.errors import InputError
from cfx.counterfactual.result import Verdict
from cfx.report.cards import (
    ORDER,
    axial,
    changed_share,
    check_cohort,
    doubts,
    failures_first,
    gap,
    layers,
    limit_of,
    lines,
    outlines,
    parted,
    pictures,
    remark,
    slices,
    stack,
)
from tests.report.hand_made import divided, make


def test_failures_come_first_and_doubted_before_agreed() -> None:
    result, _ = make()
    assert [result.verdicts[i] for i in failures_first(result)][::2] == [v.name.lower() for v in ORDER]
    assert [i for i in failures_first(result) if result.verdicts[i] == "flipped"] == [5, 0]


def test_every_verdict_has_its_place() -> None:
    assert set(ORDER) == set(Verdict)


def test_only_what_is_valid_to_the_classifier_is_doubted_and_nothing_without_an_oracle() -> None:
    result, _ = make()
    result = result.replace(oracle_probs_after=torch.eye(2)[1 - result.target])  # the oracle never says the target
    assert [result.verdicts[i] for i, odd in enumerate(doubts(result).tolist()) if odd] == ["flipped", "already"] * 2
    assert not doubts(result.replace(oracle_probs_after=None)).any()


def test_a_line_says_what_is_known_of_its_row() -> None:
    result, cohort = make()
    flipped, refused = lines(result, cohort)[0], lines(result, cohort)[4]
    assert (flipped.id, flipped.row, flipped.verdict, flipped.doubt) == ("sub-0", 100, "flipped", False)
    assert (flipped.source, flipped.target) == ("ill", "healthy")
    assert (flipped.before, flipped.after, flipped.oracle_after) == ("0.10", "0.90", "0.90")
    assert (flipped.margin, flipped.nfe, flipped.nfe_unet_backward) == ("2.5 of 2", 90, 0)
    assert (refused.verdict, refused.source, refused.before, refused.after) == ("refused", "-", "-", "-")
    assert [line.doubt for line in lines(result, cohort)] == [i == 5 for i in range(10)]


def test_without_a_cohort_rows_and_classes_go_by_number() -> None:
    line = lines(make()[0], None)[3]
    assert (line.id, line.source, line.target) == ("103", "0", "1")


def test_what_the_classifier_takes_for_another_class_than_its_label_is_said() -> None:
    result, cohort = make()
    labelled = replace(cohort, y=torch.tensor([1, 1, 1, 1, 1, 0, 0, -1, -7, 0]))  # beyond its names a cohort has none
    found = lines(result, labelled)
    assert [line.label for line in found] == ["ill"] * 5 + ["healthy"] * 2 + ["-", "-", "healthy"]
    assert [line.source for line in found] == ["ill", "healthy"] * 2 + ["-", "healthy"] + ["ill", "healthy"] + [
        "ill",
        "-",
    ]
    assert [i for i, line in enumerate(found) if line.mistaken] == [1, 3, 6]  # not what has no label, or no answer
    several = replace(cohort, y=torch.ones(10, 2))
    assert {(line.label, line.mistaken) for line in lines(result, several)} == {("-", False)}


def test_how_much_of_an_image_changes_is_what_the_eye_can_tell() -> None:
    result, _ = make(2, channels=2)
    x_cf = result.x.clone()
    x_cf[0, 1, :3] += 0.06
    x_cf[1] += 0.04
    assert changed_share(result.replace(x_cf=x_cf)).tolist() == [pytest.approx(3 / 12), 0]
    assert lines(result.replace(x_cf=x_cf), None)[0].changed == "25 %"


def test_consent_is_shown_where_the_method_asks() -> None:
    result, _ = make(2)
    assert lines(result, None)[0].consent == "-"
    asked = result.replace(consent=torch.tensor([0.4321, float("nan")]))
    assert [line.consent for line in lines(asked, None)] == ["0.43", "-"]


def test_an_oracle_that_lacks_the_target_has_nothing_to_say_of_it() -> None:
    result, cohort = make(2)
    one = result.replace(oracle_probs_before=torch.ones(2, 1), oracle_probs_after=torch.ones(2, 1))
    assert [line.oracle_after for line in lines(one, cohort)] == ["1.00", "-"]


def test_the_limit_covers_the_truth_where_it_is_known() -> None:
    result, cohort = make()
    assert limit_of(result, None) == pytest.approx(0.25)
    assert limit_of(result, replace(cohort, x_true=result.x.clamp(-0.5, 0.5) * 0)) == pytest.approx(0.5)


def test_a_volume_is_cut_through_the_middle_of_its_edit() -> None:
    result, _ = make(1, (6, 8, 7))
    x_cf = result.x.clone()
    x_cf[0, 0, 1, 6, 2] -= 0.1
    x_cf[0, 0, 3, 6, 4] += 0.1
    assert slices(result.replace(x_cf=x_cf), 0) == (2, 6, 3)


def test_a_volume_is_cut_through_what_is_read_where_that_is_known() -> None:
    result, _ = make(1, (6, 8, 7))
    x_cf = result.x.clone()
    x_cf[0, 0, 1, 6, 2] -= 0.1
    x_cf[0, 0, 3, 6, 4] += 0.1
    read = torch.zeros_like(result.edited)
    read[0, 0, 3, 6, 4] = True
    assert slices(result.replace(x_cf=x_cf, read=read), 0) == (3, 6, 4)
    assert slices(result.replace(x_cf=x_cf, read=read & False), 0) == (2, 6, 3)


@pytest.mark.parametrize(("space", "channels"), [((12, 10), 3), ((6, 8, 7), 1)])
def test_the_change_is_divided_into_what_is_read_and_what_else_can_be_seen(
    space: tuple[int, ...], channels: int
) -> None:
    result, cohort = divided(3, space, channels)
    faint = torch.where(result.edited, result.x + 0.01, result.x)
    whole, unseen = parted(result, 0), parted(result.replace(x_cf=faint), 0)
    assert not (whole["read"] & whole["rest"]).any()
    assert whole["rest"].any()
    assert np.array_equal(whole["read"], unseen["read"])  # what is read is shown however faint it is
    assert not unseen["rest"].any()
    if len(space) == 2:
        assert np.array_equal(whole["read"] | whole["rest"], result.edited[0, 0].numpy())
    said = lines(result, cohort)
    shown = {picture.caption: picture for picture in pictures(result, cohort, 0, 0.5, said[0])}
    assert [kind for kind, _ in shown["Change"].outlines] == ["under", "read", "under", "rest"]
    assert "outlined, the rest hatched" in shown["Change"].alt
    assert parted(result, 1) == {}  # already there: nothing was changed
    assert parted(make(3, space, channels)[0], 0) == {}


def test_slices_of_a_volume_show_its_parts_too() -> None:
    result, cohort = divided(1, (6, 8, 7))
    found = stack(result, cohort, 0, 0.5, lines(result, cohort)[0], [0, 3, 6])
    assert [[kind for kind, _ in picture.outlines] for picture in found] == [[], [], ["under", "read", "under", "rest"]]


def test_hatching_is_as_wide_for_every_size_of_image() -> None:
    assert [gap(make(1, (n, n))[0]) for n in (12, 64, 224)] == [2, 3, 9]


def test_what_is_not_judged_is_not_called_an_explanation() -> None:
    result, cohort = divided()
    found = pictures(result, cohort, 0, 0.5, lines(result, cohort)[0], judged=False)
    assert [picture.caption for picture in found[:3]] == ["Input", "Generator's edit", "What the generator changed"]
    assert found[2].outlines == ()
    assert not any("ounterfactual of" in picture.alt or "classifier reads" in picture.alt for picture in found[:3])


def test_an_attempt_that_failed_is_not_called_a_counterfactual() -> None:
    result, cohort = divided()
    assert result.verdicts[2] == "budget"
    found = pictures(result, cohort, 2, 0.5, lines(result, cohort)[2])
    assert found[1].caption == "Closest attempt"
    assert found[1].alt.startswith("Closest attempt of sub-2 towards healthy, verdict budget")


def test_what_was_taken_back_and_what_never_moved_is_said() -> None:
    result, cohort = divided()
    assert {remark(result, i) for i in range(10)} == {""}
    kept = result.replace(x_cf=torch.where(result.read, result.x_cf, result.x), edited=result.edited & result.read)
    assert remark(kept, 2).startswith(
        "Only what the classifier reads of the closest attempt, which is no counterfactual"
    )
    assert remark(kept, 0).startswith("Only what the classifier reads of the change is shown; the rest was taken back")
    assert remark(kept.replace(read_share=torch.ones(10)), 0) == ""  # nothing was there to be taken back
    assert remark(kept, 1) == ""
    bare = result.replace(x_cf=result.x, edited=result.edited & False, read=result.edited & False)
    assert remark(bare, 2).startswith("Nothing that was tried moved the classifier towards the target")
    assert pictures(bare, cohort, 2, 0.5, lines(bare, cohort)[2])[1].caption == "Input, unchanged"
    assert remark(make()[0], 2) == ""


def test_pixels_are_those_of_the_images() -> None:
    result, cohort = make()
    found = layers(result, cohort, 0, 0.5)
    assert list(found) == ["Input", "Counterfactual", "Change", "True counterfactual", "True change"]
    for caption, image in (
        ("Input", result.x),
        ("Counterfactual", result.x_cf),
        ("True counterfactual", cohort.x_true),
    ):
        assert found[caption][..., 0] == pytest.approx((image[0, 0].numpy().clip(-1, 1) + 1) / 2, abs=1e-6)
    grey = found["Change"][~result.edited[0, 0].numpy()]  # nothing changed: the middle of the scale
    assert np.ptp(grey, axis=0) == pytest.approx(0)
    red = found["Change"][result.edited[0, 0].numpy()]  # brighter
    assert (red[:, 0] > red[:, 2]).all()
    assert list(layers(result, None, 0, 0.5)) == ["Input", "Counterfactual", "Change"]


def test_outlines_are_the_masks_and_only_those_that_hold_something_are_drawn() -> None:
    result, cohort = make()
    found = outlines(result, cohort, 0)
    assert np.array_equal(found["edit"], result.edited[0, 0].numpy())
    assert np.array_equal(found["lesion"], cohort.lesion[0, 0].numpy())
    shown = pictures(result, cohort, 1, 0.5, lines(result, cohort)[1])  # already there: no edit
    assert [kind for kind, _ in shown[0].outlines] == ["lesion"]
    assert [len(p.outlines) for p in shown[1:]] == [0] * 4
    assert all((p.width, p.height) == (10, 12) for p in shown)
    assert all(p.uri.startswith("data:image/png;base64,") for p in shown)
    assert re.search(r"sub-1\b.*already", shown[1].alt)


def test_axial_slices_are_those_that_show_anything() -> None:
    result, _ = make(1, (4, 5, 9))
    assert axial(result, 0, 24) == [*range(9)]
    assert axial(result, 0, 3) == [0, 4, 8]
    x = result.x.clone()
    x[..., :2] = -1
    x[..., 8] = -1
    assert axial(result.replace(x=x), 0, 24) == [2, 3, 4, 5, 6, 7]
    assert axial(result.replace(x=x * 0), 0, 2) == [0, 8]


@pytest.mark.parametrize("channels", [1, 3])
def test_slices_of_a_volume_are_stacked_from_the_first_to_the_last(channels: int) -> None:
    result, cohort = make(1, (6, 8, 7), channels)
    found = stack(result, cohort, 0, 0.5, lines(result, cohort)[0], [0, 3, 6])
    assert [picture.caption for picture in found] == ["Input", "Counterfactual", "Change"]
    assert {(picture.width, picture.height) for picture in found} == {(6, 3 * 8)}
    assert all("sub-0" in picture.alt and not picture.outlines for picture in found)


def test_rows_of_other_images_are_refused() -> None:
    result, cohort = make()
    check_cohort(result, cohort)
    check_cohort(result, None)
    with pytest.raises(InputError, match=r"cohort: expected images \(10, 1, 12, 10\).* got \(9, 1, 12, 10\)"):
        check_cohort(result, cohort[:9])
