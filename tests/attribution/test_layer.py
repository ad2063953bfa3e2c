"""Which layer is looked at, and that nothing is left behind."""

import pytest
import torch
from torch import nn

from cfx.attribution.layer import resolved, watched
from cfx.attribution.method import Question
from cfx.core.errors import InputError
from cfx.models.judge import Judge
from tests.attribution.networks import Linear, Rectified, images, weighted


def question(f: object) -> Question:
    x = images(2)
    return Question(x, torch.ones(2).long(), x * 0, Judge(f), torch.arange(2))


def test_it_is_the_last_part_that_ran_once_and_returned_a_map():
    assert resolved(question(weighted(Rectified())), "") == "acts.1"
    assert resolved(question(weighted(Rectified("reused"))), "") == "two"
    assert resolved(question(weighted(Rectified())), "one") == "one"
    with pytest.raises(InputError, match="layer: expected a network of which some part returns a map"):
        resolved(question(Linear()), "")


def test_hooks_end_with_their_block_also_after_an_error():
    f = weighted(nn.Sequential(nn.Conv2d(1, 2, 3)))
    with pytest.raises(ZeroDivisionError), watched(question(f), "0"):
        1 / 0  # noqa: B018
    assert not f[0]._forward_hooks
