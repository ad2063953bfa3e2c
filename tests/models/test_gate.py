"""A gate is asked like any network: at rest, about copies, on its device; and must answer with p-values."""

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.models.gate import check_gate, p_values


class Bright(nn.Module):
    """Says how bright an image is, and writes into it."""

    def forward(self, x):
        assert not self.training
        x.clamp_(0, 1)
        return x.flatten(1).amax(1)


X = torch.tensor([0.25, 1.0, 0.05])[:, None, None, None].expand(3, 1, 2, 2).contiguous()


def test_what_a_gate_says_is_kept_exactly_and_the_images_with_it():
    gate, x = Bright().train(), X.clone()
    p = p_values(gate, x)
    assert torch.equal(p, X[:, 0, 0, 0].double())
    assert torch.equal(x, X)
    assert gate.training


def test_of_no_image_nothing_is_asked():
    def never(x):
        raise AssertionError

    assert p_values(never, X[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("gate", "match"),
    [
        (lambda x: x, r"shape \(3,\), got \(3, 1, 2, 2\)"),
        (lambda x: 3.0, "got float"),
        (lambda x: x[:, 0, 0, 0] * 9, r"in \(0, 1\].*got \[0.45, 9\].*conformal_p_values"),
        (lambda x: x[:, 0, 0, 0] * torch.nan, "p-values in"),
        (lambda x: x.reshape(-1, 7), "gate: failed on images of shape"),
    ],
)
def test_what_is_no_p_value_is_refused(gate, match):
    with pytest.raises(InputError, match=match):
        p_values(gate, X)


def test_what_is_no_gate_is_refused():
    check_gate(Bright())
    for gate, came in (("runs/detector", "got str"), (Bright, "got the class Bright")):
        with pytest.raises(InputError, match=f"cfx.ood.fit.*{came}"):
            check_gate(gate)
