"""Arrays and lists become the tensors they stand for; what holds no numbers is refused by name."""

from dataclasses import dataclass
from inspect import signature

import numpy as np
import pytest
import torch

from cfx.core.arrays import as_tensor, taking, texts, whole_numbers
from cfx.core.errors import InputError

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
READ_ONLY = VALUES.copy()
READ_ONLY.setflags(write=False)

SAME = {
    "array": VALUES,
    "big-endian": VALUES.astype(">f4"),
    "mirrored twice": VALUES[::-1, ::-1][::-1, ::-1],
    "fortran": np.asfortranarray(VALUES),
    "read-only": READ_ONLY,
    "tensor": torch.tensor(VALUES),
    "gradient": torch.tensor(VALUES, requires_grad=True),
    "sparse": torch.tensor(VALUES).to_sparse(),
    "transposed": torch.tensor(VALUES).t().contiguous().t(),
    "tensors": list(torch.tensor(VALUES)),
    "list": VALUES.tolist(),
}


@pytest.mark.parametrize("kind", SAME)
def test_what_holds_numbers_is_a_plain_tensor_of_them(kind):
    found = as_tensor(SAME[kind], "x", "numbers")
    assert torch.equal(found.float(), torch.tensor(VALUES))
    assert type(found) is torch.Tensor
    assert not found.requires_grad
    assert found.layout == torch.strided


NOT = {
    "text": "0.3",
    "nothing": None,
    "texts": ["a", "b"],
    "ragged": [[1, 2], [3]],
    "objects": [object()],
    "tensors of two shapes": [torch.zeros(2), torch.zeros(3)],
    "set": {1, 2},
    "generator": (i for i in range(3)),
    "meta": torch.zeros(2, device="meta"),
    "dates": np.array(["2020-01-01"], dtype="datetime64[D]"),
}


@pytest.mark.parametrize("kind", NOT)
def test_what_holds_none_is_refused_in_one_line(kind):
    with pytest.raises(InputError, match=r"^x: expected numbers, got .*$") as error:
        as_tensor(NOT[kind], "x", "numbers")
    assert "\n" not in str(error.value)


def test_numbers_that_stand_for_something_are_whole():
    assert torch.equal(whole_numbers(torch.tensor([0.0, 2.0]), "y"), torch.tensor([0, 2]))
    assert torch.equal(whole_numbers(torch.tensor([True, False]), "y"), torch.tensor([1, 0]))
    for odd in (torch.tensor([0.0, 1.5]), torch.tensor([0.0, torch.nan]), torch.tensor([1j])):
        with pytest.raises(InputError, match=r"^y: expected whole numbers, got \["):
            whole_numbers(odd, "y")


def test_names_are_texts():
    assert texts(["a", 2], "ids") == ("a", "2")
    assert texts(np.array(["a", "b"]), "ids") == ("a", "b")
    for odd in ("ab", 3, None):
        with pytest.raises(InputError, match=r"^ids: expected a list of names, got "):
            texts(odd, "ids")


def test_a_class_prepares_its_arguments_before_it_sees_them():
    @taking(lambda given: {name: 2 * value for name, value in given.items()})
    @dataclass(frozen=True)
    class Pair:
        a: int
        b: int = 5

    assert (Pair(1).a, Pair(1).b, Pair(1, b=2).b) == (2, 5, 4)
    assert list(signature(Pair).parameters) == ["a", "b"]
    with pytest.raises(TypeError):
        Pair(1, 2, 3)
