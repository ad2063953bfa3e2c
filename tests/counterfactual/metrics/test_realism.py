"""Named feature spaces."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.counterfactual.metrics import FeatureSpace, penultimate
from cfx.models import build


def test_penultimate_features_are_what_the_head_reads() -> None:
    torch.manual_seed(0)
    network = build("cnn", spatial_dims=2, in_channels=1, out_channels=3, channels=[4, 8])
    x = normal((1, 16, 16), seed=1, row=torch.arange(70), stream=0).clamp(-1, 1)
    space = penultimate(network, "a small classifier")
    found = space(x)
    assert space.name == "a small classifier"
    assert found.shape == (70, 8)
    assert found.dtype == torch.float64
    torch.testing.assert_close(network.head(found.float()), network(x))
    assert network.training  # left as it was


def test_features_that_are_no_vectors_are_refused() -> None:
    with pytest.raises(InputError, match="maps"):
        FeatureSpace("maps", lambda x: x)(torch.zeros(2, 1, 4, 4))
