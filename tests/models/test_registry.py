"""Networks by name: what they are built from, and laws every kind must keep, in two and three dimensions."""

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.models import BUILDERS, build, kind
from cfx.models.classifiers import log_probs
from cfx.models.patches import depth_to_space, space_to_depth

SMALL = {
    "unet": {"channels": (8, 16), "attention": (False, True), "head_channels": 8},
    "patch-unet": {"channels": (8, 16), "attention": (False, True), "head_channels": 8, "patch": 2, "features": 4},
    "autoencoder-kl": {"channels": (8, 16), "attention": (False, False), "latent_channels": 2},
    "shape-vae": {"space": (8, 8), "latent": 2, "modes": 4, "centres": 5},
    "cnn": {"channels": (8, 16), "out_channels": 3},
    "convnext": {"channels": (8, 16), "depth": 1, "kernel": 3, "out_channels": 3},
    "residual-unet": {"channels": (8, 16), "out_channels": 2},
    "densenet": {"init_features": 8, "growth_rate": 4, "block_config": (2, 2), "out_channels": 3},
}
SPACE = {2: (16, 24), 3: (8, 16, 8)}


def small(name, dims=2, **more):
    torch.manual_seed(0)
    return build(name, spatial_dims=dims, in_channels=1, **SMALL[name], **more)


def randomise(network):
    """Zero-initialised layers would hide mistakes."""
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return network


def test_every_builder_has_a_small_case():
    assert set(SMALL) == set(BUILDERS)


def test_unknown_name_lists_the_known():
    with pytest.raises(InputError, match=r"expected one of \['autoencoder-kl', 'cnn'.*got 'resnet'"):
        build("resnet")


def test_unknown_and_missing_keywords_are_named():
    with pytest.raises(InputError, match=r"network cnn: unknown keys \['widths'\]"):
        build("cnn", spatial_dims=2, in_channels=1, out_channels=1, widths=3)
    with pytest.raises(InputError, match=r"network cnn: missing keys \['out_channels'\]"):
        build("cnn", spatial_dims=2, in_channels=1)


def test_a_value_the_network_refuses_is_an_input_error():
    with pytest.raises(InputError, match="spatial_dims: expected 2 or 3, got 4"):
        build("cnn", spatial_dims=4, in_channels=1, out_channels=1)


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("dims", [2, 3])
def test_space_to_depth_keeps_each_block_together_and_inverts(dims, patch):
    x = torch.arange(2 * 3 * 8**dims, dtype=torch.float32).reshape(2, 3, *[8] * dims)
    h = space_to_depth(x, patch)
    corner = h[0][(slice(None), *[0] * dims)]
    expected = x[0][(slice(None), *[slice(patch)] * dims)].flatten()
    assert torch.equal(corner, expected)
    assert torch.equal(depth_to_space(h, patch, dims), x)


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


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", [n for n in BUILDERS if kind(n) == "classifier"])
class TestClassifier:
    def test_rows_do_not_see_each_other(self, name, dims):
        net = randomise(small(name, dims))  # in training mode: batch statistics would show here
        x = torch.randn(3, 1, *[32] * dims)
        assert torch.allclose(net(x)[1:2], net(x[1:2]), atol=1e-4)
        assert (net(x)[0] - net(x)[1]).abs().max() > 1e-4

    def test_logits_come_from_the_last_stage(self, name, dims):
        net = randomise(small(name, dims))
        x = torch.randn(2, 1, *[32] * dims)
        stages = net.stages(x)
        assert torch.allclose(net(x), net.head(stages[-1].flatten(2).mean(2)), atol=1e-5)
        sizes = [s.shape[2] for s in stages]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] < 32


def test_densenet_is_monais_function():
    from monai.networks.nets import DenseNet

    mine = randomise(small("densenet"))
    theirs = DenseNet(2, 1, 3, init_features=8, growth_rate=4, block_config=(2, 2), norm=("group", {"num_groups": 1}))
    theirs.load_state_dict(dict(zip(theirs.state_dict(), mine.state_dict().values(), strict=True)))
    x = torch.randn(2, 1, 32, 32)
    assert torch.allclose(mine(x), theirs(x), atol=1e-5)


def test_log_probs_of_one_logit_are_a_pair():
    logit = torch.tensor([[2.0]])
    assert torch.allclose(log_probs(logit).exp(), torch.tensor([[1 - torch.sigmoid(logit), torch.sigmoid(logit)]]))
    two = torch.tensor([[0.0, 2.0]])
    assert torch.allclose(log_probs(two), log_probs(logit))


OPTIONS = ["cnn", "convnext", "densenet", "residual-unet"]
NORMS = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "group": nn.GroupNorm}


@pytest.mark.parametrize("name", OPTIONS)
class TestOptions:
    @pytest.mark.parametrize("norm", [*NORMS, "none"])
    def test_the_norm_is_the_one_asked_for(self, name, norm):
        found = {type(m) for m in small(name, norm=norm).modules() if isinstance(m, tuple(NORMS.values()))}
        assert found == ({NORMS[norm]} if norm in NORMS else set())

    def test_every_activation_is_a_module_of_its_own(self, name):
        """A module that ran twice could not be told apart by hooks."""
        net, runs = small(name, activation="gelu"), []
        for m in net.modules():
            if isinstance(m, nn.GELU | nn.ReLU | nn.SiLU):
                m.register_forward_hook(lambda m, *_: runs.append(m))
        net(torch.randn(2, 1, 32, 32))
        assert len(runs) == len(set(runs)) >= 2
        assert {type(m) for m in runs} == {nn.GELU}

    @pytest.mark.parametrize("dims", [2, 3])
    def test_batch_statistics_are_felt_in_training_alone(self, name, dims):
        net = randomise(small(name, dims, norm="batch"))
        x = torch.randn(3, 1, *[32] * dims)
        assert (net(x)[1:2] - net(torch.cat([x[1:2], 3 + 5 * x[1:]]))[:1]).abs().max() > 1e-3
        net.eval()
        assert torch.allclose(net(x)[1:2], net(x[1:2]), atol=1e-4)

    def test_dropout_is_felt_in_training_alone(self, name):
        net, x = small(name, dropout=0.5), torch.randn(2, 1, 32, 32)
        assert not torch.equal(net(x), net(x))
        net.eval()
        assert torch.equal(net(x), net(x))
        assert torch.equal(net(x), small(name).eval()(x))  # the weights are those of no dropout

    def test_unknown_names_list_the_known(self, name):
        with pytest.raises(InputError, match=r"activation: expected one of \['elu', 'gelu'"):
            small(name, activation="tanh")
        if name != "densenet":  # MONAI knows more of them
            with pytest.raises(InputError, match=r"norm: expected one of \['batch', 'group', 'instance', 'none'\]"):
                small(name, norm="layer")


@pytest.mark.parametrize("space", [(16, 24), (9, 7), (8, 5, 9)])
def test_a_segmenter_says_something_of_every_voxel(space):
    net = randomise(small("residual-unet", len(space)))
    x = torch.randn(2, 1, *space)
    assert net(x).shape == (2, 2, *space)
    assert torch.allclose(net(x)[:1], net(x[:1]), atol=1e-4)
    (g,) = torch.autograd.grad(net(x.requires_grad_())[(0, 0, *[s // 2 for s in space])], x)
    assert (g[1] == 0).all()
    assert (g[0] != 0).float().mean() > 0.5  # by way of the coarse levels it sees most of the image
