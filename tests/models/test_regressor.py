"""A regressor answers in the units of what it predicts."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.models import build
from cfx.models.regressor import Regressor

CNN = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (8, 8)}


def test_a_regressor_answers_in_units(tmp_path):
    network = build("cnn", **CNN)
    model = Regressor(network, ["age", "dose"], [60.0, 3.0], [10.0, 0.5])
    x = torch.randn(3, 1, 16, 16)
    assert torch.allclose(model(x), torch.tensor([60.0, 3.0]) + torch.tensor([10.0, 0.5]) * network(x))
    with pytest.raises(InputError, match="positive"):
        Regressor(network, ["age"], [0.0], [0.0])
