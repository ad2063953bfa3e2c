"""Classifiers: stages, options, and rows that do not see each other."""

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.models import BUILDERS, kind
from cfx.models.classifiers import log_probs
from tests.models.networks import randomise, small


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", [n for n in BUILDERS if kind(n) == "classifier" and not n.startswith("monai-")])
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
