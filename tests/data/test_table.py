"""The table beside the images: what is read is what was written, and what is wrong is named with its place."""

import csv
import re

import pytest
import torch

from cfx.core.cohort import Cohort, subject_names
from cfx.core.errors import CfxWarning, InputError
from cfx.data.table import MISSING, Table, missing, number, some


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
    found = table.covariates(without=["name"]).columns
    assert found.keys() == {"age", "dose"}
    assert found["dose"].tolist() == [0.001, 2.0]
    assert found["dose"].dtype == torch.float64
    assert found["age"][0] == 70.5
    assert found["age"][1].isnan()
    assert number("7 years") is None


@pytest.mark.parametrize("token", ["", "NA", "n/a", "NaN", "nan", "null", "NULL", "None", "-", "--", "?", ".", "#N/A",
                                   "<NA>", "N.A.", "#DIV/0!", "-1.#IND", r"\N"])  # fmt: skip
def test_a_missing_value_leaves_its_column_a_column_of_numbers(tmp_path, token):
    assert missing(token)
    assert missing(token.upper())
    table = read(tmp_path, f"f,age\na,71\nb,{token}\nc,68\nd,80\n")
    found = table.covariates(without=["f"])
    assert found.columns["age"].isnan().tolist() == [False, True, False, False]
    assert found.columns["age"][[0, 2, 3]].tolist() == [71, 68, 80]
    assert not found.categories


@pytest.mark.parametrize("token", ["0", "n", "no", "unknown", "missing", "x", "-1", "+", "nano", "7T"])
def test_what_is_a_value_is_not_missing(token):
    assert not missing(token)


def test_what_is_missing_is_written_in_lower_case():
    assert {token.lower() for token in MISSING} == MISSING


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1_000", None), ("inf", None), ("1e999", None), ("0x10", None), ("", None), ("1e-3", 0.001), (".5", 0.5),
     ("-7.", -7.0), ("+3", 3.0)],
)  # fmt: skip
def test_numbers_are_plain_and_finite(cell, value):
    assert number(cell) == value


def test_texts_that_repeat_become_codes_with_their_names(tmp_path):
    table = read(tmp_path, "f,sex,site,note\na,M,Kiel,x1\nb,F,NA,x2\nc,M,Aachen,x3\nd,,Kiel,x4\n")
    found = table.covariates(without=["f"])
    assert found.categories == {"sex": ("F", "M"), "site": ("Aachen", "Kiel")}
    assert found.columns["sex"][:3].tolist() == [1, 0, 1]
    assert found.columns["site"][[0, 2, 3]].tolist() == [1, 0, 1]
    assert [bool(found.columns[k][i].isnan()) for k, i in (("sex", 3), ("site", 1))] == [True, True]
    assert "note" not in found.columns  # every text is another: names of rows, no categories


@pytest.mark.parametrize("text", ["80+", "unknown", ">90"])
def test_a_text_among_numbers_is_named_and_counts_as_missing(tmp_path, text):
    table = read(tmp_path, f"f,age\na,71\nb,68\nc,{text}\nd,80\n")
    with pytest.warns(CfxWarning, match=f"'age' holds numbers, but also '{re.escape(text)}' in row 3"):
        found = table.covariates(without=["f"])
    assert found.columns["age"].isnan().tolist() == [False, False, True, False]


def test_columns_that_get_lost_are_named(tmp_path):
    ages = "\n".join(f'{i},"{60 + i},5"' for i in range(12))
    with pytest.warns(CfxWarning, match=r"column 'age' is left out: expected numbers such as 70.5, got '60,5'"):
        assert not read(tmp_path, f"f,age\n{ages}\n").covariates(without=["f"]).columns
    people = "\n".join(f"{i},p{max(i, 1)}" for i in range(12))
    with pytest.warns(CfxWarning, match=r"11 different texts in 12 rows .* give `subject: who`"):
        read(tmp_path, f"f,who\n{people}\n").covariates(without=["f"])


@pytest.mark.parametrize("header", ["subject", "Subject ID", "participant_id", "PatientID"])
@pytest.mark.parametrize(("cells", "groups"), [
    (["7", "8", "7", "NA"], [0, 1, 0, None]),
    (["sub-01", "sub-02", "sub-01", ""], [0, 1, 0, None]),
    (["01", "1", "01", "?"], [0, 1, 0, None]),
    (["123456789012345678", "123456789012345679", "123456789012345678", "-"], [0, 1, 0, None]),
])  # fmt: skip
def test_whose_an_image_is_survives_as_text_or_number(tmp_path, header, cells, groups):
    rows = "\n".join(f"{i},{cell}" for i, cell in enumerate(cells))
    found = read(tmp_path, f"f,{header}\n{rows}\n").covariates(without=["f"])
    column = found.columns["subject"]
    same = [[a is not None and a == b for a in groups] for b in groups]
    assert (column[:, None] == column).tolist() == same
    cohort = Cohort(torch.zeros(4, 1, 2, 2), covariates=found.columns, categories=found.categories)
    names = subject_names(cohort)
    assert [[a == b for a in names[:3]] for b in names[:3]] == [row[:3] for row in same[:3]]
    assert names[3] == "3"
    if not cells[0].isdecimal():
        assert names[:2] == ("sub-01", "sub-02")


def test_the_column_of_subjects_can_be_named_and_must_be_there(tmp_path):
    table = read(tmp_path, "f,subject,who\na,1,x\nb,2,x\nc,3,y\n")
    found = table.covariates(["f"], "who")
    assert (found.columns["subject"].tolist(), found.categories["subject"]) == ([0, 0, 1], ("x", "y"))
    with pytest.raises(InputError, match=r"subject: no column 'patient' in .*; it has f, subject, who"):
        table.covariates(["f"], "patient")
    assert "subject" not in read(tmp_path, "participant_id,age\na,1\nb,2\n").covariates(["participant_id"]).columns


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_as_programs_write_them(tmp_path, separator, encoding):
    rows = [["filename", "site", "note; or, more"], ["a", "K\u00f6ln", "x"], ["b", "Lom\u00e9", "a; b, c"]]
    path = tmp_path / "t.csv"
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    assert list(Table.read(path).columns.values()) == [list(column) for column in zip(*rows[1:], strict=True)]


def test_a_decimal_comma_stands_where_semicolons_part_the_cells(tmp_path):
    table = read(tmp_path, "f;age;n\na;70,5;1\nb;68;2\n")
    assert table.covariates(["f"]).columns["age"].tolist() == [70.5, 68]


@pytest.mark.parametrize(("raw", "place"), [
    (b"name,site\na,x\nb,K\xf6ln\n", "row 2 is"),
    (b"name,Gr\xf6\xdfe\na,1\n", "the header is"),
    (b"name,site\r\na,\xe9\r\n", "row 1 is"),
    (b"PK\x03\x04\xff\xff\x00", "the header is"),
])  # fmt: skip
def test_what_is_in_another_encoding_is_named_with_its_row(tmp_path, raw, place):
    (tmp_path / "t.csv").write_bytes(raw)
    with pytest.raises(InputError, match=rf"t.csv: expected comma-separated text in UTF-8, but {place} in another"):
        Table.read(tmp_path / "t.csv")


@pytest.mark.parametrize(("raw", "message"), [
    (b'f,y\n0,"a\n1,b\n', "line 3: unexpected end of data"),
    (b'f,y\n0,"a"b\n1,b\n', "line 2: .* expected after"),
    (b"f,y\n0,a\0\n", "zero bytes"),
    ("f,y\n0,a\n".encode("utf-32"), "zero bytes"),
])  # fmt: skip
def test_rows_are_not_swallowed(tmp_path, raw, message):
    (tmp_path / "t.csv").write_bytes(raw)
    with pytest.raises(InputError, match=f"t.csv: expected comma-separated text.*{message}"):
        Table.read(tmp_path / "t.csv")


@pytest.mark.parametrize("cells", [["12%", "13%", "12%"], ['"70,5"', '"71,5"', '"70,5"'], ["70 y", "71 y", "72 y"]])
def test_numbers_that_are_written_otherwise_are_no_categories(tmp_path, cells):
    table = read(tmp_path, "f,v\n" + "\n".join(f"{i},{cell}" for i, cell in enumerate(cells)))
    with pytest.warns(CfxWarning, match="column 'v' is left out: expected numbers"):
        assert not table.covariates(["f"]).columns


def test_strengths_of_scanners_are_categories(tmp_path):
    table = read(tmp_path, "f,v\n0,3 T\n1,1.5 T\n2,3 T\n")
    assert table.covariates(["f"]).categories == {"v": ("1.5 T", "3 T")}


def test_rows_without_text_and_columns_without_name_do_not_count(tmp_path):
    assert read(tmp_path, ",f,y,\n0,a,1,\n1,b,0,\n,,,\n").columns == {"f": ["a", "b"], "y": ["1", "0"]}


def test_long_lists_are_cut_and_counted():
    assert some(range(3)) == "0, 1, 2"
    assert some((i for i in range(20)), most=2) == "0, 1, ... 20 in all"


@pytest.mark.parametrize("name", ["patient", "PTID", "RID", "mrn", "Person ID", "id"])
def test_a_column_that_probably_says_whose_an_image_is_asks_to_be_named(tmp_path, name):
    table = read(tmp_path, f"file,{name}\n" + "".join(f"{i}.png,p{i // 2}\n" for i in range(8)))
    with pytest.warns(CfxWarning, match=f"column '{name}' has 4 different texts in 8 rows; .*`subject: {name}`"):
        table.covariates(["file"])
    table.covariates(["file"], subject=name)
    table.covariates(["file", name])


@pytest.mark.parametrize(
    ("name", "cells"),
    [("id", "abcdefgh"), ("patient", "01010101"), ("patient", "abcdefg-"), ("site", "aabbccdd"), ("age", "66778899")],
)
def test_columns_of_something_else_ask_for_nothing(tmp_path, name, cells):
    table = read(tmp_path, f"file,{name}\n" + "".join(f"{i}.png,{cell}\n" for i, cell in enumerate(cells)))
    table.covariates(["file"])


@pytest.mark.parametrize("unit", ["y", "Y", "yrs", " years", "kg", "mm"])
def test_numbers_with_a_unit_are_not_left_out_in_silence(tmp_path, unit):
    table = read(tmp_path, "file,age\n" + "".join(f"{i}.png,{60 + i}{unit}\n" for i in range(6)))
    with pytest.warns(CfxWarning, match="column 'age' is left out: expected numbers such as 70.5"):
        assert "age" not in table.covariates(["file"]).columns


@pytest.mark.parametrize(
    ("cells", "known"),
    [("71,missing,missing,80", [71, None, None, 80]), ("unknown,unknown,unknown,60,70", [None, None, None, 60, 70]),
     ("1,2,3,4,5,x,x,x,x,x,x", [1, 2, 3, 4, 5, *[None] * 6]), ("Missing,not done,2,7.5", [None, None, 2, 7.5])],
)  # fmt: skip
def test_numbers_among_words_that_say_nothing_stay_numbers(tmp_path, cells, known):
    table = read(tmp_path, "age\n" + cells.replace(",", "\n") + "\n")
    with pytest.warns(CfxWarning, match=r"column 'age' holds numbers, but also .*; these count as missing"):
        found = table.covariates(())
    assert [None if v != v else v for v in found.columns["age"].tolist()] == known
    assert not found.categories


@pytest.mark.parametrize("cells", ["1,2,A,A", "unknown,M,F,M,unknown", "3a,3b,4,4,3a,3b", "missing,missing,1,1"])
def test_categories_with_numbers_among_them_stay_categories(tmp_path, cells):
    found = read(tmp_path, "stage\n" + cells.replace(",", "\n") + "\n").covariates(())
    assert set(found.categories["stage"]) == set(cells.split(","))
