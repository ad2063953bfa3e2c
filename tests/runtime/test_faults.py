"""A fault is named where the user wrote it, and what was probably meant is said."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import pytest
from pydantic import Field, model_validator

from cfx.core.errors import InputError
from cfx.runtime.config import Frozen, check


class Tag(Frozen):
    """A planted tag."""

    kind: Literal["tag"]
    strength: float = Field(default=1, ge=0)


class Shape(Frozen):
    """A planted shape."""

    kind: Literal["shape"]
    shape: str = "round"
    waves: int


class Brains(Frozen):
    """Simulated images."""

    kind: Literal["brains"]
    size: int = 64
    planted: tuple[Annotated[Tag | Shape, Field(discriminator="kind")], ...] = ()

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len({p.kind for p in self.planted}) < len(self.planted):
            raise ValueError("planted: expected each kind once")
        return self


class Files(Frozen):
    """Images on disk."""

    kind: Literal["files"]
    path: str


Data = Annotated[Brains | Files, Field(discriminator="kind")]


class Optimizer(Frozen):
    """How it learns."""

    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)


class Run(Frozen):
    """Everything."""

    optimizer: Optimizer = Optimizer()
    data: Data | None = None
    validation: Data | float = 0.1
    depth: Literal["typical", "boundary"] = "typical"
    tests: Mapping[str, Data] = Field(default_factory=dict)


BRAINS = {"kind": "brains"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"optimizer": {"rl": 1}}, "unknown key `optimizer.rl`; did you mean `optimizer.lr`? Keys: lr, betas"),
        (
            {"optimiser": {"lr": 1}},
            "unknown key `optimiser`; did you mean `optimizer`? Keys: optimizer, data, validation, depth, tests",
        ),
        ({"optimizer": {"qqq": 1}}, "unknown key `optimizer.qqq`. Keys: lr, betas"),
        # a key of that name in another place is meant before one of a similar name here
        (
            {"optimizer": {"waves": 1}},
            "unknown key `optimizer.waves`; did you mean `data.planted.waves`? Keys: lr",
        ),
        # a key of another kind is not meant: it is the very key that was refused
        ({"data": BRAINS | {"path": "x"}}, "did you mean `validation.path`? Keys of kind brains: kind, size, planted"),
        (
            {"data": BRAINS | {"planted": [{"kind": "tag", "strenght": 1}]}},
            "unknown key `data.planted.0.strenght`; did you mean `data.planted.0.strength`? "
            "Keys of kind tag: kind, strength",
        ),
        (
            {"data": {"kind": "brain"}},
            "data.kind: unknown choice 'brain'; did you mean 'brains'? Choices: brains",
        ),
        ({"data": {"kind": 7}}, "data.kind: unknown choice '7'. Choices: brains, files"),
        ({"data": {"size": 8}}, "missing key `data.kind`; choices: brains, files"),
        ({"data": {"kind": "files"}}, "missing key `data.path`"),
        ({"depth": "typicla"}, "depth: unknown choice 'typicla'; did you mean 'typical'? Choices: typical, boundary"),
        ({"optimizer": {"lr": "fast"}}, "optimizer.lr: Input should be a valid number, unable to parse string as a"),
        ({"optimizer": {"betas": [1, "x"]}}, "optimizer.betas.1: Input should be a valid number"),
        ({"tests": {"a": {"kind": "files"}}}, "missing key `tests.a.path`"),
        ({"tests": {"a": BRAINS | {"sise": 8}}}, "unknown key `tests.a.sise`; did you mean `tests.a.size`?"),
        ({"data": BRAINS | {"planted": [{"kind": "tag"}] * 2}}, "data: planted: expected each kind once"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_meant(values, sentence):
    with pytest.raises(InputError) as error:
        check(Run, values, "x.yaml")
    assert str(error.value).startswith("config x.yaml: ")
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("validation", "sentence"),
    [
        (BRAINS | {"sise": 8}, "unknown key `validation.sise`; did you mean `validation.size`?"),
        ({"kind": "brain"}, "validation.kind: unknown choice 'brain'"),
        (BRAINS | {"planted": [{"kind": "tag", "strength": -1}]}, "validation.planted.0.strength: Input should be gr"),
    ],
)
def test_a_mapping_that_might_have_been_a_number_is_not_told_so(validation, sentence):
    with pytest.raises(InputError) as error:
        check(Run, {"validation": validation})
    assert sentence in str(error.value)
    assert "valid number" not in str(error.value)


def test_a_key_is_found_where_a_kind_has_its_name():
    """pydantic says `data.brains.planted.0.shape.waves`, where `shape` is the kind, not the key of that name."""
    with pytest.raises(InputError, match=r"missing key `data\.planted\.0\.waves`"):
        check(Run, {"data": BRAINS | {"planted": [{"kind": "shape"}]}})
    with pytest.raises(
        InputError, match=r"unknown key `data\.planted\.0\.wave`; did you mean `data\.planted\.0\.waves`"
    ):
        check(Run, {"data": BRAINS | {"planted": [{"kind": "shape", "shape": "oval", "waves": 1, "wave": 2}]}})


def test_every_fault_is_named():
    with pytest.raises(InputError) as error:
        check(Run, {"depht": 1, "optimizer": {"rl": 1, "lr": "x"}, "data": {"kind": "files"}})
    for part in ("`depht`", "`optimizer.rl`", "optimizer.lr: ", "`data.path`"):
        assert part in str(error.value)
