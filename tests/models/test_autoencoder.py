"""The autoencoder's two halves, in two and three dimensions."""

import pytest
import torch

from tests.models.networks import SPACE, randomise, small


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("patch", [1, 2])
class TestAutoencoder:
    def test_latent_shape_is_what_it_announces_and_decodes_back(self, dims, patch):
        net = small("autoencoder-kl", dims, patch=patch)
        x = torch.randn(2, 1, *SPACE[dims])
        mean, std = net.encode(x)
        assert tuple(mean.shape[1:]) == tuple(std.shape[1:]) == net.latent_shape(SPACE[dims])
        assert (std > 0).all()
        assert net.decode(mean).shape == x.shape

    def test_noise_moves_the_latent_by_its_standard_deviation(self, dims, patch):
        net = randomise(small("autoencoder-kl", dims, patch=patch))
        x = torch.randn(1, 1, *SPACE[dims])
        mean, std = net.encode(x)
        noise = torch.randn_like(mean)
        assert torch.allclose(net(x, noise)[0], net.decode(mean + noise * std), atol=1e-6)
        assert torch.allclose(net(x)[0], net.decode(mean), atol=1e-6)
