"""Keys are found in the schema by the values that stand there."""

from collections.abc import Mapping
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from cfx.runtime.keys import Keys, constants, follow, holds


class A(BaseModel):
    kind: Literal["a"]
    size: int = 1


class B(BaseModel):
    kind: Literal["b"] = "b"
    width: int = 1


class Inner(BaseModel):
    one: Annotated[A | B, Field(discriminator="kind")]
    many: list[A | None] = []


class Outer(BaseModel):
    inner: Inner | float = 0.5
    named: Mapping[str, Inner] = {}
    made: list[int] = Field(default_factory=lambda: [3])


KEYS = Keys(Outer)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ([], 7),
        (["a"], [1, {"b": None}]),
        (["a", 1], {"b": None}),
        (["a", 1, "b"], None),
        (["a", 2], None),
        (["a", "1"], None),
        (["c"], 7),
        (["c", "d"], None),
    ],
)
def test_following_a_path(path, found):
    values = {"a": [1, {"b": None}], "c": 7}
    assert follow(values, path) == (values if not path else found)
    assert holds(values["a"][1], "b")
    assert not holds(values["a"], 2)
    assert not holds("text", 0)


def test_every_key_of_every_kind():
    one, many = {("one", key) for key in ("kind", "size", "width")}, {("many", key) for key in ("kind", "size")}
    inner = {("one",), ("many",)} | one | many
    expected = {("inner",), ("named",), ("made",)} | {(top, *path) for top in ("inner", "named") for path in inner}
    assert set(KEYS.paths()) == expected


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ({"kind": "a"}, {"kind", "size"}),
        ({"kind": "b", "size": 3}, {"kind", "width"}),
        ({"kind": "c"}, None),
        ({}, None),
        (3, None),
    ],
)
def test_the_kind_that_was_chosen(value, keys):
    node = KEYS.node({"inner": {"one": value}}, ["inner", "one"])
    found = KEYS.meant(node, value)
    assert (found and set(found["properties"])) == keys


def test_nodes_are_found_through_lists_and_names():
    values = {"inner": {"many": [None, {"kind": "a"}]}, "named": {"x": {"one": {"kind": "b"}}}}
    assert set(KEYS.mappings(KEYS.node(values, ["inner", "many", 1]))[0]["properties"]) == {"kind", "size"}
    width = KEYS.node(values, ["named", "x", "one", "width"])
    assert (width["type"], width["default"]) == ("integer", 1)


def test_constants_tell_kinds_apart_and_factories_have_made_their_defaults():
    a, b = KEYS.mappings(KEYS.node({"inner": {}}, ["inner", "one"]))
    assert (constants(a), constants(b)) == ({"kind": "a"}, {"kind": "b"})
    assert KEYS.root["properties"]["made"]["default"] == [3]
