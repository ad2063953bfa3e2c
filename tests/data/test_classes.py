"""Labels become the integers that were meant, the same in every cohort, or are refused by name."""

import re

import numpy as np
import pytest
import torch

from cfx.core.cohort import Cohort, part
from cfx.core.errors import CfxWarning, InputError
from cfx.data import PngConfig
from cfx.data.classes import check_labels, check_numbers, encode, labels_of, numbered_alike, numbered_by
from cfx.data.lazy import LazyCohort


class TestEncode:
    def test_names_are_numbered_as_given_or_by_the_alphabet(self):
        y, classes = encode(["ill", "well", "ill"], ["well", "ill"], "dx")
        assert (y.tolist(), classes) == ([1, 0, 1], ("well", "ill"))
        y, classes = encode(["ill", "well", "ailing"], [], "dx")
        assert (y.tolist(), classes) == ([1, 2, 0], ("ailing", "ill", "well"))

    def test_whole_numbers_stand_for_themselves_though_a_class_is_absent(self):
        y, classes = encode(["2", "0.0", "2"], [], "dx")
        assert (y.tolist(), classes) == ([2, 0, 2], ())
        assert encode(["2", "0"], ["a", "b", "c"], "dx")[0].tolist() == [2, 0]

    def test_classes_named_by_numbers_are_names(self):
        assert encode(["10", "5", "10"], ["10", "5"], "dx")[0].tolist() == [0, 1, 0]

    @pytest.mark.parametrize(
        ("cells", "classes", "message"),
        [
            (["a", "c"], ["a", "b"], r"dx: labels c are not among the classes"),
            (["0", "1.5"], [], "dx: expected class names or whole numbers from 0, got 1.5"),
            (["-1", "1"], [], "got -1.0"),
            (["nan", "1"], [], r"no label in row 1 \('nan'\)"),
            (["0", "3"], ["a", "b"], "dx: label 3 is outside the 2 classes"),
        ],
    )
    def test_labels_without_meaning_are_refused(self, cells, classes, message):
        with pytest.raises(InputError, match=message):
            encode(cells, classes, "dx")


class TestLabelsOf:
    @pytest.mark.parametrize("raw", [np.array([1, 0, 2], np.uint8), np.array([[1.0], [0], [2]]), np.array([1.0, 0, 2])])
    def test_one_label_a_row(self, raw):
        y = labels_of(raw, [], "y")
        assert (y.tolist(), y.dtype) == ([1, 0, 2], torch.long)

    def test_several_labels_a_row(self):
        y = labels_of(np.array([[1, 0], [1, 1]]), ["a", "b"], "y")
        assert (y.tolist(), y.dtype) == ([[1, 0], [1, 1]], torch.float32)

    @pytest.mark.parametrize(
        ("raw", "classes", "message"),
        [
            (np.array(["a"]), [], r"y: expected numbers \(n,\), \(n, 1\) or \(n, k\)"),
            (np.zeros((2, 0)), [], r"got float64 \(2, 0\)"),
            (np.zeros((2, 2, 2)), [], r"got float64 \(2, 2, 2\)"),
            (np.array([0.5]), [], "y: expected whole numbers from 0, got 0.5"),
            (np.array([-1]), [], "whole numbers from 0"),
            (np.array([2]), ["a", "b"], "y: label 2 is outside the 2 classes"),
            (np.array([[0, 2]]), [], "several labels a row must be 0 or 1"),
            (np.array([[0, 1]]), ["a"], "2 labels a row, but 1 classes"),
        ],
    )
    def test_labels_without_meaning_are_refused(self, raw, classes, message):
        with pytest.raises(InputError, match=message):
            labels_of(raw, classes, "y")


def test_without_names_every_label_passes():
    check_labels(torch.tensor([9]), [], "y")
    with pytest.raises(InputError, match="label 9 is outside"):
        check_labels(torch.tensor([9]), ["a"], "y")


@pytest.mark.parametrize("cells", [["0", "1", "{}", "1"], ["AD", "CN", "{}", "AD"], ["{}", "1", "0", "1"], ["{}"] * 2])
@pytest.mark.parametrize("token", ["n/a", "NA", "-", "?", "nan", "None", "NULL", ".", "#N/A", "N/A", "<NA>"])
def test_a_missing_label_is_never_a_class(cells, token):
    cells = [cell.format(token) for cell in cells]
    rows = [i for i, cell in enumerate(cells, start=1) if cell == token]
    for classes in ([], ["AD", "CN"], ["0", "1"]):
        with pytest.raises(InputError, match=rf"dx: no label in row {rows[0]} .*`classes`"):
            encode(cells, classes, "dx")


@pytest.mark.parametrize(("cells", "classes"), [(["none", "mild", "none"], ["none", "mild"]), (["-", "+"], ["+", "-"])])
def test_what_is_listed_is_a_class(cells, classes):
    y, named = encode(cells, classes, "dx")
    assert [named[k] for k in y.tolist()] == cells


def test_numbers_that_do_not_start_at_zero_are_named():
    for read in (lambda k: encode(list(map(str, k)), [], "dx"), lambda k: labels_of(np.array(k), [], "dx")):
        for labels in ([1, 2], [10, 20190], [3, 3, 1]):
            with pytest.warns(CfxWarning, match="dx: no image has label 0.*say `classes"):
                read(labels)
        for labels in ([0, 2], [1, 1], [0, 1, 2]):  # the split of a larger cohort, or patients alone
            read(labels)


@pytest.mark.parametrize("label", ["99999999999999999999", "4294967296"])
def test_numbers_beyond_any_network_are_refused(label):
    with pytest.raises(InputError, match=r"whole numbers from 0, got .* in row 2"):
        encode(["0", label], [], "dx")
    with pytest.raises(InputError, match=r"whole numbers from 0, got .* in row 2"):
        labels_of(np.array([0, float(label)]), [], "dx")


def test_numbers_are_names_where_the_classes_are_numbers():
    for labels, wanted in (([1, 2, 1], [0, 1, 0]), ([2, 2], [1, 1])):
        assert encode(list(map(str, labels)), ["1", "2"], "dx")[0].tolist() == wanted
        assert labels_of(np.array(labels), ["1", "2"], "dx").tolist() == wanted
    assert encode(["1.0", "1.0"], ["1", "2"], "dx")[0].tolist() == [0, 0]
    assert labels_of(np.array([10, 20190, 10]), ["10", "20190"], "dx").tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["0", "1", "unknown", "1"], "hold numbers and texts"),
        (["4a", "2", "3"], "hold numbers and texts"),
        (["AD", "ad", "CN"], "look alike"),
        (["AD", "AD\u200b", "CN"], "look alike"),
        (["Mu\u0308", "M\u00fc", "CN"], "look alike"),
        (["mild AD", "mild  AD", "CN"], "look alike"),
    ],
)
def test_doubtful_names_are_said(cells, message):
    with pytest.warns(CfxWarning, match=message):
        y, classes = encode(cells, [], "dx")
    assert [classes[k] for k in y.tolist()] == cells
    encode(cells, sorted(set(cells)), "dx")  # listed, they are beyond doubt


def test_a_label_that_is_no_number_is_named_with_its_row():
    with pytest.raises(InputError, match="whole numbers from 0, got nan in row 2"):
        labels_of(np.array([1, np.nan, 0]), [], "y")


@pytest.mark.parametrize(
    ("given", "message"),
    [(["a", "a"], "each class once"), ([True, False], "in quotes"), (["a", None], "in quotes"), ([1.5], "string")],
)
def test_names_that_are_no_names(given, message):
    with pytest.raises(ValueError, match=message):
        PngConfig(path=".", classes=given)
    assert PngConfig(path=".", classes=[1, "b"]).classes == ("1", "b")


def cohort(y, classes=()):
    n = len(y)
    return Cohort(
        torch.arange(float(n)).view(n, 1, 1, 1).expand(n, 1, 2, 2) / n, torch.tensor(y), classes=list(classes)
    )


def lazy(whole):
    return LazyCohort(lambda rows: {"x": whole.x[rows]}, whole.ids, whole.y, classes=whole.classes)


@pytest.mark.parametrize("make", [lambda c: c, lazy, lambda c: part(lazy(c), [0, 1, 2, 3])])
def test_labels_follow_the_names_of_the_first(make):
    other = make(cohort([0, 1, 1, 0], ["CN", "MCI"]))
    found = numbered_by(other, ["AD", "CN", "MCI"], "validation", "data")
    assert found.y.tolist() == [1, 2, 2, 1]
    assert list(found.classes) == ["AD", "CN", "MCI"]
    some = found[[3, 1]]
    assert (some.y.tolist(), list(some.classes)) == ([1, 2], ["AD", "CN", "MCI"])
    assert some.x.equal(other[[3, 1]].x)
    assert (len(found), found.shape, found.ids) == (4, other.shape, other.ids)


def test_a_class_of_the_second_alone_is_refused_unless_no_row_has_it():
    with pytest.raises(InputError, match=r"validation: labels MCI are not among the classes \('AD', 'CN'\) of data"):
        numbered_by(cohort([0, 1], ["CN", "MCI"]), ["AD", "CN"], "validation", "data")
    assert numbered_by(cohort([0, 0], ["CN", "MCI"]), ["AD", "CN"], "validation", "data").y.tolist() == [1, 1]


def test_numbers_take_the_names_on_and_must_have_some():
    assert numbered_by(cohort([1, 0]), ["AD", "CN"], "b", "a").classes == ["AD", "CN"]
    with pytest.raises(InputError, match="b: label 2 is outside the 2 classes"):
        numbered_by(cohort([2, 0]), ["AD", "CN"], "b", "a")
    for same in (cohort([1, 0]), cohort([1, 0], ["x", "y"]), cohort([0, 1]).replace(y=None)):
        assert numbered_by(same, (), "b", "a") is same


def test_of_several_the_one_with_all_classes_decides():
    few, all_three = cohort([0, 0], ["MCI"]), cohort([2, 0, 1], ["AD", "CN", "MCI"])
    found = numbered_alike({"data": few, "reference": all_three})
    assert found["data"].y.tolist() == [2, 2]
    assert found["reference"] is all_three
    with pytest.raises(InputError, match="one set of classes, got data MCI; reference AD, CN"):
        numbered_alike({"data": few, "reference": cohort([0, 1], ["AD", "CN"])})
    with pytest.raises(
        InputError, match=r"data: labels MCI are not among the classes \('AD', 'CN'\) of the classifier"
    ):
        numbered_alike({"data": few}, ("AD", "CN"), "the classifier")


@pytest.mark.parametrize("text", ["Unknown", "unk", "missing", "Not available", "TBD"])
def test_a_class_that_may_be_a_missing_label_is_said_aloud(text):
    with pytest.warns(CfxWarning, match=f"hold '{text}', which may say that there is no label"):
        encode(["AD", "CN", text], (), "label")
    names = ("AD", "CN", text)
    assert encode(["AD", "CN", text], names, "label")[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "absent"),
    [([0, 1, 9], "2, 3, 4, ... 7 in all"), ([0, 1, 999], "2, 3, 4, ... 997 in all"), ([0, 20190], "1, 2, 3, ... 20189"),
     ([99, 255], "0, where numbers of classes start"), ([0, 1, 2, 8], "3, 4, 5, ... 5 in all")],
)  # fmt: skip
@pytest.mark.parametrize("read", ["cells", "array"])
def test_numbers_that_leave_most_out_are_warned_of_with_the_missing_ones(labels, absent, read):
    rows = labels * 5
    with pytest.warns(CfxWarning, match=rf"dx: no image has label {re.escape(absent)}.*say `classes: \['{labels[0]}'"):
        y = encode([str(k) for k in rows], (), "dx")[0] if read == "cells" else labels_of(np.array(rows), (), "dx")
    assert y.tolist() == rows


@pytest.mark.parametrize(
    "labels", [[0, 1, 2] * 9, [0, 2] * 9, [0, 1, 3] * 9, [0, 9, 0], [0] * 9, [4] * 9, [0, 1, 5, 6] * 4]
)
def test_a_split_that_lacks_some_class_is_read_in_silence(labels):
    assert encode([str(k) for k in labels], (), "dx")[0].tolist() == labels


@pytest.mark.parametrize(
    ("cells", "rows"),
    [(["0", "1", "x"], "'x' in row 3"), (["0", "1"] * 10 + ["ill"] + ["0"], "'ill' in row 21"),
     (["1", "?1"] + ["0", "1", "2"] * 10, "'\\?1' in row 2"),
     (["0", "1"] * 20 + ["unknown", "O"], "in row 41, 'O' in row 42")],
)  # fmt: skip
def test_a_slip_of_the_pen_among_whole_numbers_is_refused_with_its_row(cells, rows):
    with pytest.raises(InputError, match=f"dx: expected whole numbers, as all other labels are, got .*{rows}"):
        check_numbers(cells, "dx")


@pytest.mark.parametrize(
    "cells",
    [
        ["0", "1"],
        ["AD", "CN", "0"],
        ["2", "3a", "3b", "2"],
        ["0", "", "1"],
        ["1a"] * 2 + ["2", "3"] * 5,
        ["F0", "F1", "3"],
    ],
)
def test_classes_that_are_names_or_numbers_are_no_slips(cells):
    check_numbers(cells, "dx")
