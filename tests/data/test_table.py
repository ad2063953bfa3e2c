"""The table beside the images: what is read is what was written, and what is wrong is named with its place."""

import csv

import numpy as np
import pytest
import torch

from cfx.core.errors import InputError
from cfx.data.table import Table, check_labels, encode, find, labels_of, number, some


def read(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "t.csv"
    path.write_text(text, encoding=encoding)
    return Table.read(path)


def test_cells_come_back_as_a_csv_writer_wrote_them(tmp_path):
    rows = [["name", "note"], ["a", 'said "no", twice'], ["b", "two\nlines"], ["é", "1"]]
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8-sig") as file:  # the mark that Excel puts first
        csv.writer(file).writerows(rows)
    assert Table.read(tmp_path / "t.csv").columns == {"name": ["a", "b", "é"], "note": [r[1] for r in rows[1:]]}


def test_spaces_around_cells_and_empty_lines_do_not_count(tmp_path):
    assert read(tmp_path, " a , b\n\n 1,2 \n\n").columns == {"a": ["1"], "b": ["2"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "expected a header and at least one row, got 1 lines"),
        ("a,b,a\n1,2,3\n", "columns named more than once: a"),
        ("a,b\n1,2\n1,2,3\n", "row 2 has 3 cells, the header names 2 columns"),
    ],
)
def test_broken_tables_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_a_table_in_another_encoding_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"t.csv: expected comma-separated text in UTF-8"):
        read(tmp_path, "name,site\na,Köln\n", encoding="latin-1")


def test_columns_are_asked_for_by_name_and_must_be_full(tmp_path):
    table = read(tmp_path, "a,b\nx,1\ny,\nx,3\n")
    assert table.column("a", "label") == ["x", "y", "x"]
    with pytest.raises(InputError, match=r"label: no column 'c' in .*t.csv; it has a, b"):
        table.column("c", "label")
    with pytest.raises(InputError, match=r"column 'b' is empty in rows 2"):
        table.column("b", "label")
    with pytest.raises(InputError, match=r"column 'a' names these more than once: x"):
        table.names("a")
    with pytest.raises(InputError, match="table: expected a csv file, found none"):
        Table.read(tmp_path / "none.csv")


def test_covariates_are_the_columns_of_numbers(tmp_path):
    table = read(tmp_path, "name,age,sex,none,dose\n1,70.5,f,,1e-3\n2,,m,,2\n")
    found = table.covariates(without=["name"])
    assert found.keys() == {"age", "dose"}
    assert found["dose"].tolist() == [0.001, 2.0]
    assert found["dose"].dtype == torch.float64
    assert found["age"][0] == 70.5
    assert found["age"][1].isnan()
    assert number("7 years") is None


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
            (["nan", "1"], [], "got nan"),
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


def test_files_are_found_with_and_without_their_suffix_the_exact_name_first(tmp_path):
    for name in ("a", "a.png", "b.jpg", "b.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find(tmp_path, ["a", "b", "sub/c", "b.jpg"], [".png", ".jpg"], "path")
    assert [str(p.relative_to(tmp_path)) for p in found] == ["a", "b.png", "sub/c.png", "b.jpg"]
    with pytest.raises(InputError, match=r"path: no file in .* for d, e \(tried the suffixes .png\)"):
        find(tmp_path, ["d", "a", "e"], [".png"], "path")
    with pytest.raises(InputError, match="path: expected a folder, found none"):
        find(tmp_path / "none", [], [], "path")


def test_long_lists_are_cut_and_counted():
    assert some(range(3)) == "0, 1, 2"
    assert some((i for i in range(20)), most=2) == "0, 1, ... 20 in all"
