"""Patches fold into channels and back."""

import pytest
import torch

from cfx.models.patches import depth_to_space, space_to_depth


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("dims", [2, 3])
def test_space_to_depth_keeps_each_block_together_and_inverts(dims, patch):
    x = torch.arange(2 * 3 * 8**dims, dtype=torch.float32).reshape(2, 3, *[8] * dims)
    h = space_to_depth(x, patch)
    corner = h[0][(slice(None), *[0] * dims)]
    expected = x[0][(slice(None), *[slice(patch)] * dims)].flatten()
    assert torch.equal(corner, expected)
    assert torch.equal(depth_to_space(h, patch, dims), x)
