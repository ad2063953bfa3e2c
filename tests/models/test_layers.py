"""Normalisations by name against what they are to keep."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.models.layers import activation, convolution, groups, normalisation


@pytest.mark.parametrize(
    ("channels", "most", "expected"), [([16], 32, 8), ([16, 24], 32, 8), ([16], 4, 4), ([3], 32, 1), ([2], 8, 1)]
)
def test_groups_divide_every_width_and_keep_two_channels(channels, most, expected):
    assert groups(channels, most) == expected


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["batch", "instance", "group", "none"])
def test_a_new_normalisation_standardises_over_its_axes(dims, name):
    """Batch: over rows and voxels; instance: over voxels; group: over voxels and the channels of a group."""
    x = 3 + 2 * torch.randn(6, 8, *[6] * dims) * torch.arange(1, 9).reshape(1, 8, *[1] * dims)
    y = normalisation(name, dims, 8, most=2)(x)
    if name == "none":
        assert torch.equal(y, x)
        return
    within = {
        "batch": y.transpose(0, 1).flatten(1), "instance": y.flatten(2).flatten(0, 1),
        "group": y.reshape(6, 2, 4, -1).flatten(2).flatten(0, 1),
    }[name]  # fmt: skip
    assert torch.allclose(within.mean(1), torch.zeros(len(within)), atol=1e-5)
    assert torch.allclose(within.std(1, correction=0), torch.ones(len(within)), atol=1e-4)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="norm: expected one of"):
        normalisation("layer", 2, 4)
    with pytest.raises(InputError, match="activation: expected one of"):
        activation("tanh")
    with pytest.raises(InputError, match="spatial_dims: expected 2 or 3, got 1"):
        convolution(1)
