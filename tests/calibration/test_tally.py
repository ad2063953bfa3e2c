"""Tallies of parts add up to the figures of the whole."""

import pytest
import torch

from cfx.calibration import Tally, figures
from cfx.core.errors import InputError
from tests.conformal.samples import drawn


def test_parts_add_up_to_the_whole():
    p, y = drawn(900)
    parts = sum(Tally.of(a, b) for a, b in zip(p.split(250), y.split(250), strict=True))
    whole = figures(p, y)
    assert parts.figures() == pytest.approx({name: whole[name] for name in parts.figures()})
    assert parts.rows == 900
    assert parts.reliability(2).count.sum() == 900
    assert parts.reliability().edges.tolist() == pytest.approx(torch.linspace(0, 1, 16).tolist())


def test_other_classes_do_not_add_up():
    with pytest.raises(InputError, match="Tally: expected equal classes and bins"):
        Tally.of(*drawn(10, 3)) + Tally.of(*drawn(10, 4))
