"""A gate: anything that gives images a p-value."""

import torch

from cfx.core.gates import Gate


def test_any_function_of_images_is_a_gate():
    def gate(x):
        return torch.ones(len(x))

    assert isinstance(gate, Gate)
    assert not isinstance(torch.ones(2), Gate) or callable(torch.ones(2))
