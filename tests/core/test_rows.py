"""What is per row is read from the annotations; it is checked, selected, joined, replaced and started empty by that."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from inspect import unwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.rows import Rows, Shape, about, fixed_length, positions
from tests.counterfactual.metrics.hand_made import result_of


class Grade(IntEnum):
    GOOD = 0
    FAIR = 1
    POOR = 4


@dataclass(frozen=True)
class Scan(Rows):
    """Everything a column can be.

    Attributes:
        x: Images.
        region: Where the body is.
        grade: How good they are, which is said
            on two lines.
        seconds: Time spent on each.
        label: A class, or a mark for each of k.
        place: World coordinates.
        names: One a row.
        known: Numbers by name.
        seed: Of the whole.
        classes: Of the whole.
    """

    x: Float[Tensor, "n c *space"] = field(metadata=about(array="image"))
    region: Bool[Tensor, "n 1 *space"]
    grade: Int[Tensor, " n"] = field(metadata=about(codes=Grade))
    seconds: Float[Tensor, " n"]
    seed: int
    label: Int[Tensor, " n"] | Float[Tensor, "n k"] | None = None
    place: Float[Tensor, "n world=3"] | None = None
    names: tuple[str, ...] = ()
    known: Mapping[str, Shaped[Tensor, " n"]] = field(default_factory=dict)
    classes: Sequence[str] = ()


def scan(n: int = 8, space: tuple[int, ...] = (3, 2), **more) -> Scan:
    """`n` rows in which every number says its row."""
    at = torch.arange(n)
    x = at.view(n, *[1] * (1 + len(space))).expand(n, 2, *space).float()
    given = {
        "x": x, "region": x[:, :1] > 3, "grade": torch.tensor([0, 1, 4]).repeat(n)[:n], "seconds": torch.ones(n),
        "seed": 7, "label": at, "place": at[:, None].expand(n, 3).float(), "names": tuple(f"r{i}" for i in range(n)),
        "known": {"age": 10.0 * at, "visit": at}, "classes": ("a", "b"),
    }  # fmt: skip
    return Scan(**given | more)


def same(a: Rows, b: Rows) -> bool:
    """Equal in every column, to the type and the bit, and in every plain value."""
    mine, theirs = a.parts(), b.parts()
    alike = all(
        v.dtype == theirs[k].dtype and torch.equal(v.nan_to_num(-1), theirs[k].nan_to_num(-1))
        if isinstance(v, Tensor)
        else v == theirs[k]
        for k, v in mine.items()
    )
    return type(a) is type(b) and list(mine) == list(theirs) and alike and a.plain() == b.plain()


def test_columns_are_read_from_annotations_and_meanings_from_the_docstring():
    columns = {c.name: c for c in Scan.columns()}
    assert list(columns) == ["x", "region", "grade", "seconds", "label", "place", "names", "known"]
    assert (columns["x"].array, columns["seconds"].array) == ("image", "seconds")
    assert [s.axes for s in columns["label"].shapes] == [(), ("k",)]
    assert [s.kind for s in columns["label"].shapes] == ["Int", "Float"]
    assert columns["place"].shapes[0].axes == ("world=3",)
    assert columns["names"].shapes == ()
    assert {name for name, c in columns.items() if c.optional} == {"label", "place"}
    assert {name for name, c in columns.items() if c.mapping} == {"known"}
    assert columns["grade"].codes is Grade
    assert columns["grade"].meaning == "How good they are, which is said on two lines."
    assert columns["known"].meaning == "Numbers by name."


def test_a_shape_is_read_and_fits_what_it_says():
    shape = Shape.read(Float[Tensor, "n 1 *space"])
    assert (str(shape), shape.axes) == ("Float (n, 1, *space)", ("1", "*space"))
    assert shape.fits(torch.zeros(5, 1, 4, 4))
    assert shape.fits(torch.zeros(0, 1, 4))
    assert not shape.fits(torch.zeros(5, 2, 4, 4))
    assert not shape.fits(torch.zeros(5, 1))
    assert shape.holds(torch.zeros(1, dtype=torch.float64))
    assert not shape.holds(torch.zeros(1, dtype=torch.bool))
    twice = Shape.read(Int[Tensor, "n k k"])
    assert twice.fits(torch.zeros(2, 3, 3))
    assert not twice.fits(torch.zeros(2, 3, 4))
    assert [fixed_length(axis) for axis in ("1", "world=4", "k", "*space")] == [1, 4, None, None]
    assert Shape.read(Shaped[Tensor, " n"]).holds(torch.zeros(1, dtype=torch.bool))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"seconds": torch.ones(3)},
            "expected Float (n) with n = 8, c = 2, *space = 3x2, got float32 (3,)",
        ),
        ({"seconds": torch.ones(8).long()}, "Scan.seconds: expected Float (n) with"),
        ({"seconds": torch.ones(8, 1)}, "Scan.seconds: expected Float (n) with"),
        ({"region": torch.zeros(8, 1, 3, 2)}, "Scan.region: expected Bool (n, 1, *space) with"),
        ({"region": torch.full((8, 1, 3, 2), torch.nan)}, "got float32 (8, 1, 3, 2)"),
        ({"region": torch.zeros(8, 2, 3, 2).bool()}, "got bool (8, 2, 3, 2)"),
        ({"region": torch.zeros(8, 1, 2, 3).bool()}, "*space = 3x2, got bool (8, 1, 2, 3)"),
        ({"grade": torch.tensor([0, 1, 9, 4, 4, 4, 4, -1])}, "expected codes of Grade, [0, 1, 4]; got [-1, 9]"),
        ({"label": torch.zeros(8, 2).long()}, "Scan.label: expected Int (n) or Float (n, k) with"),
        ({"place": torch.zeros(8, 4)}, "Scan.place: expected Float (n, world=3) with"),
        ({"names": ("a", "b")}, "Scan.names: expected 8 rows, got 2"),
        ({"names": ["a"] * 8}, "Scan.names: expected one text a row, got list"),
        ({"known": {"age": torch.ones(7)}}, "Scan.known.age: expected Shaped (n) with"),
        ({"x": None}, "Scan.x: expected a value, got None"),
    ],
)
def test_what_does_not_fit_is_refused_when_built(change, says):
    with pytest.raises(InputError, match=re.escape(says)):
        scan(**change)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("verdict", torch.full((8,), 9), "verdict: expected codes of Verdict, [0, 1, 2, 3, 4]; got [9]"),
        (
            "margin",
            torch.ones(3),
            "margin: expected Float (n) with n = 8, c = 1, *space = 4x4, k = 2, got float32 (3,)",
        ),
        ("edited", torch.full((8, 1, 4, 4), torch.nan), "edited: expected Bool (n, 1, *space) with"),
    ],
)
def test_a_wrong_verdict_margin_or_mask_of_counterfactuals_is_refused_when_built(name, value, says):
    x = torch.zeros(8, 1, 4, 4)
    made = result_of(x, x + 0.1)
    object.__setattr__(made, name, value)  # past the type checker of the test run, which users do not have
    with pytest.raises(InputError, match=re.escape(f"Counterfactuals.{says}")):
        made.__post_init__()


@pytest.mark.parametrize("label", [None, torch.arange(8), torch.rand(8, 5)])
def test_alternatives_and_none_are_allowed_where_the_annotation_says_so(label):
    made = scan(label=label, place=None, known={})
    assert ("label" in made.parts()) == (label is not None)
    assert "place" not in made.parts()
    assert len(made) == 8


PICKED = [
    (slice(2, 7, 2), [2, 4, 6]), ([5, 0, 5], [5, 0, 5]), ([], []), (torch.tensor([7, 1]), [7, 1]),
    (torch.arange(8) > 5, [6, 7]), ([-1], [7]),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "at"), PICKED)
def test_selecting_takes_every_column_and_keeps_what_is_of_the_whole(rows, at):
    some = scan()[rows]
    assert positions(rows, 8).tolist() == [i % 8 for i in at]
    assert some.x[:, 0, 0, 0].tolist() == at
    assert some.names == tuple(f"r{i}" for i in at)
    assert some.known["age"].tolist() == [10.0 * i for i in at]
    assert some.place.shape == (len(at), 3)
    assert (some.seed, some.classes) == (7, ("a", "b"))
    assert len(some) == len(at)


def test_seconds_are_of_the_row():
    """8 rows of a second each: two of them took a second each, and so did all of them joined again."""
    x = torch.zeros(8, 1, 4, 4)
    result = replace(result_of(x, x), seconds=torch.ones(8))
    assert result[[3, 5]].seconds.tolist() == [1.0, 1.0]
    assert type(result).cat([result[:2], result[2:]]).seconds.tolist() == [1.0] * 8


def test_parts_that_are_joined_are_the_whole():
    whole = scan()
    assert same(Scan.cat([whole[:3], whole[3:3], whole[3:]]), whole)
    assert Scan.cat([whole]) is whole
    assert same(Scan.cat([whole[5:], whole[:5]]), whole[[5, 6, 7, 0, 1, 2, 3, 4]])


def test_values_of_different_runs_are_not_joined():
    with pytest.raises(InputError, match="expected at least one value"):
        Scan.cat([])
    with pytest.raises(InputError, match=re.escape("differ in ['seed']")):
        Scan.cat([scan(), scan(seed=8)])
    with pytest.raises(InputError, match=re.escape("differ in ['known.visit', 'place']")):
        Scan.cat([scan(), scan(place=None, known={"age": torch.ones(8)})])


def test_putting_rows_replaces_them_and_no_others():
    whole, part = scan(), scan(2, label=torch.tensor([50, 60]), names=("p", "q"), known={
        "age": torch.tensor([1.0, 2.0]), "visit": torch.tensor([3, 4])})  # fmt: skip
    done = whole.put([6, 1], part)
    assert same(done[[6, 1]], part)
    rest = [0, 2, 3, 4, 5, 7]
    assert same(done[rest], whole[rest])
    assert same(whole, scan())
    assert same(whole.put(slice(0, 0), whole[:0]), whole)


def test_a_part_of_another_size_or_kind_is_not_put():
    with pytest.raises(InputError, match="part: expected 1 rows of the same run, got 2"):
        scan().put([3], scan(2))
    with pytest.raises(InputError, match=re.escape("got 2 that differ in ['label']")):
        scan().put([3, 4], scan(2, label=None))


@pytest.mark.parametrize("n", [0, 3])
def test_a_blank_is_of_the_right_shape_and_knows_nothing(n):
    made = Scan.blank(n, {"c": 2, "space": (4, 5)}, seed=1)
    assert (made.x.shape, made.region.shape, made.region.dtype) == ((n, 2, 4, 5), (n, 1, 4, 5), torch.bool)
    assert made.x.isnan().all()
    assert not made.region.any()
    assert made.grade.tolist() == [0] * n
    assert made.names == ("",) * n
    assert made.label.dtype == torch.int64
    assert made.place.shape == (n, 3)
    assert (made.known, len(made)) == ({}, n)


def test_a_blank_takes_values_and_leaves_optional_columns_without_a_size_empty():
    made = Scan.blank(2, {"*space": (4,), "c": 1}, seed=1, seconds=torch.tensor([1.0, 2.0]))
    assert made.seconds.tolist() == [1.0, 2.0]
    with pytest.raises(InputError, match=re.escape("sizes: expected the length of axis 'c' of x, got ['space']")):
        Scan.blank(2, {"space": (4,)}, seed=1)
    with pytest.raises(InputError, match=re.escape("Scan.seconds")):
        Scan.blank(2, {"space": (4,), "c": 1}, seed=1, seconds=torch.ones(3))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 5),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.booleans(),
    st.dictionaries(st.text("abc_", min_size=1, max_size=4), st.sampled_from([torch.float64, torch.int64, torch.bool])),
    st.data(),
)
def test_a_value_is_what_its_columns_and_its_plain_values_say(n, space, labelled, known, data):
    made = scan(
        n,
        tuple(space),
        label=torch.arange(n) if labelled else None,
        known={name: torch.arange(n).to(dtype) for name, dtype in known.items()},
    )
    assert same(Scan.of(made.parts(), made.plain()), made)
    rows = data.draw(st.lists(st.integers(0, n - 1), max_size=6)) if n else []
    assert same(made[rows], Scan.of({k: _picked(v, rows) for k, v in made.parts().items()}, made.plain()))
    order = data.draw(st.permutations(range(n)))
    assert same(made[list(order)].put(list(range(n)), made), made)
    cut = data.draw(st.integers(0, n))
    assert same(Scan.cat([made[:cut], made[cut:]]), made)


def _picked(values, rows):
    if isinstance(values, Tensor):
        return torch.stack([values[i] for i in rows]) if rows else values[:0]
    return tuple(values[i] for i in rows)


def test_replacing_checks_again():
    assert scan().replace(seed=9).seed == 9
    with pytest.raises(InputError, match=re.escape("Scan.grade")):
        scan().replace(grade=torch.full((8,), 3))


def test_annotations_may_be_strings_or_optional():
    from typing import Optional

    @dataclass(frozen=True)
    class Late(Rows):
        """Late annotations.

        Attributes:
            x: Numbers.
            y: More of them.
            more: And more.
        """

        x: "Float[Tensor, ' n']"
        y: Optional[Float[Tensor, " n"]] = None  # noqa: UP045
        more: Mapping[str, Float[Tensor, " n"]] | None = None

    value = Late(torch.arange(3.0), torch.arange(3.0))
    assert len(value) == 3
    assert value[[2]].y.tolist() == [2]
    assert value[[2]].more is None
    with pytest.raises(InputError, match=r"Late\.y: expected Float"):
        Late(torch.zeros(3), torch.zeros(2))


@pytest.mark.parametrize("rows", [[5], [True] * 9, [1.5], slice(None, None, -1), 0, torch.zeros(2, 2).long()])
def test_rows_that_are_none_are_refused(rows):
    with pytest.raises(InputError, match="rows: expected a slice, positions or flags among 4 rows"):
        unwrap(positions)(rows, 4)
