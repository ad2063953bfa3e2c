"""Input times gradient is the first term of Taylor's series: wrong by the second."""

import pytest
import torch

from cfx.attribution import attribute
from tests.attribution.networks import images


def test_of_a_square_it_is_twice_the_change():
    x = images(2)
    found = attribute(lambda v: torch.stack([v.flatten(1).sum(1), v.flatten(1).square().sum(1)], 1), x, 1,
                      method="input-x-gradient")  # fmt: skip
    torch.testing.assert_close(found.map, 2 * x.square())
    assert found.verdicts == ("incomplete", "incomplete")
    assert found.completeness_error.tolist() == pytest.approx([1.0, 1.0], rel=1e-4)
