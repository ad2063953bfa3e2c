"""The shape network: principal components where its bend is zero, and laws of its code."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.models import build

SPACE = {2: (8, 6), 3: (6, 4, 5)}


def network(dims=2, latent=2, modes=5, centres=7):
    """Orthonormal modes, unbent."""
    torch.manual_seed(0)
    space = SPACE[dims]
    net = build("shape-vae", spatial_dims=dims, in_channels=1, space=space, latent=latent, modes=modes, centres=centres)
    voxels = net.mean.numel()
    net.basis = torch.linalg.qr(torch.randn(voxels, modes)).Q.T.reshape(modes, *space)
    net.mean = 0.1 * torch.randn(1, *space)
    net.scale = torch.linspace(0.5, 0.1, modes)
    net.centres = torch.randn(centres, latent)
    return net


@pytest.mark.parametrize("dims", [2, 3])
class TestUnbent:
    def test_code_and_shape_are_inverse(self, dims):
        net = network(dims)
        z = 0.5 * torch.randn(4, 2)
        assert (net.unclipped(z).abs() < 1).all()
        assert torch.allclose(net.encode(net.decode(z))[0], z, atol=1e-5)

    def test_it_is_the_projection_on_the_first_modes(self, dims):
        net = network(dims)
        x = 0.3 * torch.randn(3, 1, *SPACE[dims])
        b = net.basis[:2].flatten(1)
        expected = net.mean.flatten() + (x - net.mean).flatten(1) @ b.T @ b
        assert torch.allclose(net.unclipped(net.encode(x)[0]).flatten(1), expected, atol=1e-5)

    def test_noise_moves_the_code_by_its_standard_deviation(self, dims):
        net = network(dims)
        x, noise = 0.3 * torch.randn(3, 1, *SPACE[dims]), torch.randn(3, 2)
        image, mean, std = net(x, noise)
        assert torch.allclose(image, net.decode(mean + std * noise))
        assert torch.allclose(net(x)[0], net.decode(mean))
        assert tuple(mean.shape[1:]) == net.latent_shape(SPACE[dims])


def test_the_bend_is_the_formula():
    net = network()
    with torch.no_grad():
        net.outward.weight.normal_()
    z = torch.randn(3, 2, dtype=torch.float64)
    net = net.double()
    for i in range(3):
        phi = torch.tensor([torch.exp(-((z[i] - c) ** 2).sum() / 4) for c in net.centres], dtype=torch.float64)
        h = net.outward.weight @ phi + torch.cat([z[i], torch.zeros(3, dtype=torch.float64)])
        x = net.mean + torch.einsum("m,m...->...", h * net.scale, net.basis)[None]
        assert torch.allclose(net.decode(z)[i], x[0].clamp(-1, 1))


def test_the_jacobian_is_autograds():
    net = network().double()
    torch.nn.init.normal_(net.outward.weight)
    z = torch.randn(3, 2, dtype=torch.float64)
    each = [torch.autograd.functional.jacobian(net.coefficients, row) for row in z]
    assert torch.allclose(net.jacobian(z), torch.stack(each))


def test_keywords_build_the_same_network():
    net = network()
    again = build("shape-vae", **net.keywords)
    again.load_state_dict(net.state_dict())
    assert again.keywords == net.keywords


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"space": (8,)}, r"space: expected 2 sizes and 1 channel, got \(8,\), 1"),
        ({"in_channels": 2}, r"space: expected 2 sizes and 1 channel, got \(8, 8\), 2"),
        ({"latent": 5}, r"latent: expected 1 .. modes=4, got 5"),
        ({"latent": 0}, r"latent: expected 1 .. modes=4, got 0"),
    ],
)
def test_bad_keywords_are_named(more, message):
    good = {"spatial_dims": 2, "in_channels": 1, "space": (8, 8), "latent": 2, "modes": 4, "centres": 3}
    with pytest.raises(InputError, match=message):
        build("shape-vae", **(good | more))


def test_shapes_on_another_grid_are_refused():
    with pytest.raises(InputError, match=r"x: expected shapes \(n, \(1, 8, 6\)\), got \(2, 1, 8, 8\)"):
        network().encode(torch.zeros(2, 1, 8, 8))
