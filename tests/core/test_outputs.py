"""The tensor a network means is found in every usual wrapping, and never guessed."""

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.outputs import tensor_of

MEANT, OTHER = torch.ones(2, 3), torch.zeros(2, 7)
Inception = namedtuple("Inception", ["logits", "aux"])


class Tagged(torch.Tensor):
    """Such as MONAI's MetaTensor."""


@pytest.mark.parametrize(
    "out",
    [
        MEANT,
        MEANT.as_subclass(Tagged),
        {"logits": MEANT, "hidden": OTHER},
        {"aux": OTHER, "out": MEANT},
        {"scores": MEANT},
        {"scores": MEANT, "loss": None},
        OrderedDict(hidden=OTHER, logits=MEANT),
        SimpleNamespace(loss=None, logits=MEANT, hidden_states=(OTHER,)),
        SimpleNamespace(sample=MEANT),
        (MEANT, OTHER),
        [MEANT, OTHER],
        (MEANT,),
        Inception(MEANT, OTHER),
        ({"logits": MEANT}, OTHER),
    ],
)
def test_the_tensor_that_is_meant(out):
    found = tensor_of(out)
    assert type(found) is torch.Tensor
    assert torch.equal(found, MEANT)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ({"a": MEANT, "b": OTHER}, r"oracle: expected a tensor under logits, out or sample, .*keys \['a', 'b'\]"),
        ({}, r"or one only, got the keys \[\]"),
        ({"logits": None}, r"got the keys \['logits'\]"),
        ((), "got tuple"),
        (None, "got NoneType"),
        (("healthy", MEANT), "got str"),
        (1.5, "got float"),
    ],
)
def test_what_holds_no_single_tensor_is_refused(out, message):
    with pytest.raises(InputError, match=message):
        tensor_of(out, "oracle")
