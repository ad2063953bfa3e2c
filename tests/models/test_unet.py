"""Denoising networks in two and three dimensions."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.models import build
from tests.models.networks import SPACE, randomise, small


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["unet", "patch-unet"])
class TestDenoisingNetwork:
    def test_it_starts_at_zero_and_learns(self, name, dims):
        net = small(name, dims)
        x, t = torch.randn(2, 1, *SPACE[dims]), torch.tensor([3, 500])
        y = net(x, timesteps=t)
        assert torch.equal(y, torch.zeros_like(x))
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(3):
            loss = (net(x, timesteps=t) - x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < x.square().mean()
        reached = sum(bool(p.grad.abs().sum() > 0) for p in net.parameters())
        assert reached >= 0.9 * len(list(net.parameters()))

    def test_time_and_label_change_the_output_row_by_row(self, name, dims):
        net = randomise(small(name, dims, classes=2))
        x = torch.randn(1, 1, *SPACE[dims]).repeat(3, *[1] * (dims + 1))
        y = net(x, timesteps=torch.tensor([3, 3, 400]), class_labels=torch.tensor([0, 1, 0]))
        alone = net(x[:1], timesteps=torch.tensor([3]), class_labels=torch.tensor([0]))
        assert torch.allclose(y[:1], alone, atol=1e-5)
        assert (y[0] - y[1]).abs().max() > 1e-4
        assert (y[0] - y[2]).abs().max() > 1e-4
        assert net(x[:1], timesteps=torch.tensor([3]), class_labels=torch.tensor([2])).isfinite().all()


def test_patch_unet_names_sizes_it_cannot_take():
    with pytest.raises(InputError, match=r"x_t: expected spatial sizes divisible by 4, got \(10, 8\)"):
        small("patch-unet")(torch.zeros(1, 1, 10, 8), torch.tensor([0]))


def test_default_patch_unet_is_small_enough_to_train_on_two_cores():
    net = build("patch-unet", spatial_dims=2, in_channels=1, channels=(64, 96), attention=(False, True), classes=2)
    assert 1e6 < sum(p.numel() for p in net.parameters()) < 2.5e6


@pytest.mark.parametrize("name", ["unet", "patch-unet"])
@pytest.mark.parametrize("space", [(15, 17), (16, 18), (12, 15)])
def test_every_unet_names_sizes_it_cannot_take(name, space):
    network = small(name)
    if any(s % network.multiple for s in space):
        with pytest.raises(InputError, match=rf"x_t: expected spatial sizes divisible by {network.multiple}, got"):
            network(torch.zeros(1, 1, *space), torch.tensor([0]))
    else:
        assert network(torch.zeros(1, 1, *space), torch.tensor([0])).shape[2:] == space
