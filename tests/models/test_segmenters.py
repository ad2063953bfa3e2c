"""A segmenter answers voxel by voxel, on images of any size."""

import pytest
import torch

from tests.models.networks import randomise, small


@pytest.mark.parametrize("space", [(16, 24), (9, 7), (8, 5, 9)])
def test_a_segmenter_says_something_of_every_voxel(space):
    net = randomise(small("residual-unet", len(space)))
    x = torch.randn(2, 1, *space)
    assert net(x).shape == (2, 2, *space)
    assert torch.allclose(net(x)[:1], net(x[:1]), atol=1e-4)
    (g,) = torch.autograd.grad(net(x.requires_grad_())[(0, 0, *[s // 2 for s in space])], x)
    assert (g[1] == 0).all()
    assert (g[0] != 0).float().mean() > 0.5  # by way of the coarse levels it sees most of the image
