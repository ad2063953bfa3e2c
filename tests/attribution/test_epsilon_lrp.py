"""Epsilon-LRP: relevance by hand, input times gradient of rectifiers, and what a large epsilon absorbs."""

import pytest
import torch

from cfx.attribution import attribute, build_attribution
from cfx.core.errors import InputError
from tests.attribution.networks import Linear, Rectified, images, weighted


def test_of_rectifiers_it_is_input_times_gradient_and_biases_hold_the_rest():
    f, x = weighted(Rectified(norm=True)), images(2)
    found, plain = (attribute(f, x, 1, method=m) for m in ("epsilon-lrp", "input-x-gradient"))
    torch.testing.assert_close(found.map, plain.map, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found.map.flatten(1).sum(1) + found.bias, found.value, rtol=1e-4, atol=1e-5)
    assert float(found.bias.abs().min()) > 1e-3


def test_a_large_epsilon_absorbs_relevance():
    f, x = Linear(k=2), images(2)
    f.b.data.zero_()
    found = attribute(f, x, 1, method=build_attribution("epsilon-lrp", epsilon=1.0))
    z = found.value
    kept = z / (z + torch.where(z < 0, -1.0, 1.0))
    torch.testing.assert_close(found.map, f.w[1].detach() * x * kept.view(-1, 1, 1, 1), rtol=1e-4, atol=1e-5)
    assert found.verdicts == ("incomplete", "incomplete")


def test_epsilon_is_positive():
    with pytest.raises(InputError, match="epsilon: expected a positive number"):
        attribute(Linear(), images(1), 0, method=build_attribution("epsilon-lrp", epsilon=0.0))
