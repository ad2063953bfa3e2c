"""Batch normalisation adapted: what cancels, what equals one giant batch, what is changed, and that all comes back."""

import pytest
import torch
from torch import nn

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.models import batch_norm
from cfx.models.batch_norm import Consistency, batch_norms, batch_statistics, entropy, target_statistics, tuned
from cfx.models.judge import Judge
from tests.models.kinds import KINDS, images, plain
from tests.models.networks import small

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
SPACE = {1: (9,), 2: (5, 4), 3: (3, 4, 2)}
dims = pytest.mark.parametrize("dims", [1, 2, 3])


class Net(nn.Module):
    """Two layers of batch normalisation, dropout between them."""

    def __init__(self, dims=2, kernel=3, **settings):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(dims)
            self.layers = nn.Sequential(
                CONV[dims](1, 3, kernel, padding="same"), NORM[dims](3, **settings), nn.SiLU(), nn.Dropout(0.5),
                CONV[dims](3, 4, kernel, padding="same"), NORM[dims](4, **settings), nn.SiLU(),
            )  # fmt: skip
            self.head = nn.Linear(4, 2)
            for m in (self.layers[1], self.layers[5]):
                if m.affine:
                    m.weight.data.uniform_(0.5, 2)
                    m.bias.data.normal_()
                if m.track_running_stats:
                    m.running_mean.normal_()
                    m.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.head(self.layers(x).flatten(2).mean(2))


def batch(n=12, dims=2, seed=0):
    return torch.rand(n, 1, *SPACE[dims], generator=torch.Generator().manual_seed(seed)) * 2 - 1


def sorted_by_site(dims=2):
    """Two sites far apart, one after the other: batches of one have far less variance than all."""
    x = batch(24, dims).double() / 8
    return torch.cat([x[:12] - 0.8, x[12:] * 0.5 + 0.8])


def everything(network):
    """Every tensor itself with its numbers, its gradient, whether it wants one; every mode."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return (
        {name: (id(t), t.detach().clone(), t.requires_grad, t.grad) for name, t in tensors.items()},
        [m.training for m in network.modules()],
    )


def check_same(network, before):
    tensors, modes = everything(network)
    assert modes == before[1]
    assert tensors.keys() == before[0].keys()
    for name, (address, values, wants, grad) in tensors.items():
        was = before[0][name]
        assert (address, wants) == (was[0], was[2])
        assert torch.equal(values, was[1])
        assert grad is was[3]


ADAPTED = {
    "batch": lambda net, x: batch_statistics(net),
    "target": lambda net, x: target_statistics(net, x, batch=5),
    "entropy": lambda net, x: tuned(net, x, rate=0.1),
    "consistency": lambda net, x: tuned(net, x, Consistency(lambda v: v.flip(-1)), rate=0.1, batch=5),
}
every = pytest.mark.parametrize("how", ADAPTED)


@dims
def test_batch_statistics_cancel_an_affine_change_of_intensity_exactly(dims):
    net = nn.Sequential(CONV[dims](1, 3, 1), NORM[dims](3, eps=1e-30)).double().eval()
    x = batch(dims=dims).double()
    with batch_statistics(net), torch.no_grad():
        torch.testing.assert_close(net(0.4 * x + 0.3), net(x), rtol=0, atol=1e-12)
    assert float((net(0.4 * x + 0.3) - net(x)).abs().max().detach()) > 0.1


@dims
def test_batch_statistics_are_those_of_training_with_dropout_off(dims):
    net, x = Net(dims), batch(dims=dims)
    with batch_statistics(net), torch.no_grad():
        found = net(x)
        assert torch.equal(net(x), found)
    net.layers[3].p = 0.0
    torch.testing.assert_close(found, net.train()(x).detach())


@dims
@pytest.mark.parametrize("size", [1, 5, 24])
def test_target_statistics_are_those_of_one_giant_batch(dims, size):
    net, x = Net(dims).double(), sorted_by_site(dims)
    with batch_statistics(net), torch.no_grad():
        giant = net(x)
    with target_statistics(net, x, batch=size), torch.no_grad():
        torch.testing.assert_close(net(x), giant, rtol=0, atol=1e-11)
        torch.testing.assert_close(torch.cat([net(v) for v in x.split(1)]), giant, rtol=0, atol=1e-11)


def test_a_mean_of_the_variances_of_batches_is_another_number():
    net, x = Net(), sorted_by_site().float()
    with target_statistics(net, x, batch=12):
        var = net.layers[1].running_var.clone()
    of_batches = net.layers[0](x).detach().reshape(2, 12, 3, -1).transpose(1, 2).flatten(2).var(2, unbiased=False)
    assert float(of_batches.mean()) < 0.5 * float(var.mean())


def test_target_statistics_survive_a_mean_far_from_zero():
    net = nn.Sequential(nn.BatchNorm2d(1)).double()
    x = batch().double()
    with target_statistics(net, x + 1e7, batch=5), torch.no_grad():
        far = net[0].running_var.clone()
    torch.testing.assert_close(far, x.var(unbiased=False).reshape(1), rtol=1e-7, atol=0)


@pytest.mark.parametrize(("name", "more"), [("cnn", {"norm": "batch"}), ("monai-resnet18", {})])
def test_target_statistics_of_networks_by_name(name, more):
    net, x = small(name, **more).double(), batch(6).double().repeat(1, 1, 8, 8)[:, :, :32, :32]
    with batch_statistics(net), torch.no_grad():
        giant = net(x)
    with target_statistics(net, x, batch=4), torch.no_grad():
        torch.testing.assert_close(net(x), giant, rtol=1e-9, atol=1e-9)


def test_a_source_and_a_tensor_give_the_same_statistics():
    net, x = Net(), batch()
    with target_statistics(net, x, batch=5):
        known = net.layers[5].running_var
    with target_statistics(net, Cohort(x), batch=5):
        assert torch.equal(net.layers[5].running_var, known)


def test_answers_with_target_statistics_are_of_each_image_by_itself():
    net, x = Net(), batch()
    with target_statistics(net, x):
        Judge(net).check_company(x)
    with batch_statistics(net), pytest.raises(InputError, match="depends on the images beside it"):
        Judge(net).check_company(x)


def test_layers_without_statistics_of_their_own_and_layers_that_do_not_run():
    net, x = Net(track_running_stats=False).double(), batch().double()
    net.unused = nn.BatchNorm2d(2).double()
    expected = net.eval()(x).detach()
    with target_statistics(net, x, batch=5), torch.no_grad():
        torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-11)
        assert torch.equal(net.unused.running_var, torch.ones(2).double())
    assert net.layers[1].running_mean is None


def test_no_pass_of_tuning_is_batch_statistics():
    net, x = Net(), batch()
    with batch_statistics(net), torch.no_grad():
        expected = net(x)
    with tuned(net, x, passes=0), torch.no_grad():
        assert torch.equal(net(x), expected)


@dims
@pytest.mark.parametrize("objective", [entropy, Consistency(lambda v: v.flip(-1))], ids=["entropy", "consistency"])
def test_tuning_makes_its_objective_small_by_gamma_and_beta_only(dims, objective):
    net, x = Net(dims), batch(dims=dims)

    def value():
        with torch.no_grad():
            return float(objective(net, x))

    with batch_statistics(net):
        before = value()
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    with tuned(net, x, objective, passes=5, rate=0.02):
        assert 0 <= value() < before
        moved = {name for name, p in net.named_parameters() if not torch.equal(p, weights[name])}
        assert moved == {f"layers.{i}.{name}" for i in (1, 5) for name in ("weight", "bias")}
        assert not any(p.requires_grad for p in net.parameters())


def test_one_step_of_tuning_by_hand():
    """Adam's first step is the rate times the sign of the gradient."""
    net, x = Net().eval(), batch()
    by_hand = nn.Parameter(net.layers[5].bias.detach().clone())
    with batch_statistics(net):
        other = {"layers.5.bias": by_hand}
        log_p = torch.func.functional_call(net, other, (x,)).log_softmax(1)
        (g,) = torch.autograd.grad(-(log_p.exp() * log_p).sum(1).mean(), by_hand)
    with tuned(net, x, rate=0.01):
        torch.testing.assert_close(net.layers[5].bias, by_hand - 0.01 * g.sign(), atol=1e-5, rtol=0)


def test_entropy_and_consistency_of_known_answers():
    logits = torch.tensor([[0.0, 0.0], [0.0, 100.0]])
    assert float(entropy(lambda x: logits, batch(2))) == pytest.approx(torch.tensor(2.0).log() / 2)
    sure = Consistency(lambda v: 1 - v)
    assert float(sure(lambda x: 100 * torch.cat([x, 1 - x], 1).flatten(1), torch.zeros(3, 1, 1, 1))) == pytest.approx(
        float(torch.tensor(2.0).log())
    )
    assert float(sure(lambda x: torch.ones(3, 2), torch.zeros(3, 1, 1, 1))) == pytest.approx(0, abs=1e-7)


def test_one_logit_counts_as_two_and_pixels_as_images():
    class One(Net):
        def forward(self, x):
            return super().forward(x).diff(dim=1)[:, 0]

    found = []
    for net in (Net(), One()):
        with tuned(net, batch(), rate=0.01):
            found.append(net.layers[1].weight.clone())
    torch.testing.assert_close(*found)
    segmenter, x = Net().layers, batch()
    with batch_statistics(segmenter), torch.no_grad():
        before = float(entropy(segmenter, x))
    with tuned(segmenter, x, rate=0.02, passes=3), torch.no_grad():
        assert float(entropy(segmenter, x)) < before


@every
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_all_comes_back_bit_for_bit(how, error):
    net, x = Net(), batch()
    net.layers[1].eval()
    net.layers[4].weight.requires_grad_(False)
    net.head.weight.grad = torch.ones_like(net.head.weight)
    net(x)
    before = everything(net)

    def work():
        with ADAPTED[how](net, x):
            assert not any(m.training for m in net.modules())
            with torch.no_grad():
                net(x)
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(error):
            work()
    check_same(net, before)
    assert not any(m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("how", [how for how in ADAPTED if how != "batch"])
def test_all_comes_back_where_the_adaptation_itself_fails(how):
    net = Net()
    before = everything(net)
    with pytest.raises(InputError, match="failed on images"), ADAPTED[how](net, batch(dims=3)):
        pass
    check_same(net, before)


def test_one_adaptation_inside_another():
    net, x = Net(), batch()
    before = everything(net)
    with tuned(net, x, rate=0.1):
        inside = everything(net)
        with target_statistics(net, x):
            pass
        check_same(net, inside)
    check_same(net, before)


def test_layers_that_share_gamma_still_do():
    net, x = Net(), batch()
    net.layers[4], net.layers[5] = nn.Conv2d(3, 3, 3, padding="same"), nn.BatchNorm2d(3)
    net.layers[5].weight, net.head = net.layers[1].weight, nn.Linear(3, 2)
    with tuned(net, x, rate=0.1):
        assert net.layers[5].weight is net.layers[1].weight
    assert isinstance(net.layers[1].weight, nn.Parameter)


def test_synchronised_layers_in_one_process_and_a_refusal_on_several(monkeypatch):
    x = batch().double()
    net, same = Net().double(), nn.SyncBatchNorm.convert_sync_batchnorm(Net()).double()
    for how in (batch_statistics, lambda net: target_statistics(net, x, batch=5)):
        found = []
        for network in (net, same):
            with how(network), torch.no_grad():
                found.append(network(x))
        torch.testing.assert_close(*found, rtol=0, atol=1e-12)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with batch_statistics(net):
        pass
    with pytest.raises(InputError, match="2 processes"), batch_statistics(same):
        pass


@pytest.mark.parametrize(
    ("network", "match"),
    [
        (small("cnn"), "got only GroupNorm"),
        (nn.Conv2d(1, 2, 3), "got none; such"),
        (lambda x: x, "got function"),
    ],
)
@every
def test_a_network_without_batch_normalisation_is_told_so(network, match, how):
    with pytest.raises(InputError, match=match), ADAPTED[how](network, batch()):
        pass


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["scripted", "frozen script", "exported", "function"])
def test_layers_that_cannot_be_reached_are_no_silent_nothing(kind):
    with pytest.raises(InputError, match="network: expected a module"), batch_statistics(KINDS[kind](plain())):
        pass


@pytest.mark.parametrize("kind", ["compiled", "data parallel", "frozen parameters"])
def test_wrapped_networks_are_adapted_like_what_they_wrap(kind):
    net, x = KINDS[kind](plain()), images(6)
    net.eval()(x)
    with batch_statistics(own := plain()), torch.no_grad():
        expected = own(x)
    with batch_statistics(net), torch.no_grad():
        torch.testing.assert_close(net(x), expected)
    with target_statistics(net, x, batch=2), torch.no_grad():
        torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_is_refused():
    net, x = Net(), batch()
    with pytest.raises(InputError, match="got none"), target_statistics(net, x[:0]):
        pass
    twice = nn.Sequential(net.layers[:4], nn.Conv2d(3, 3, 1), net.layers[1])
    with pytest.raises(InputError, match="run again, 1 times"), target_statistics(twice, x):
        pass
    with pytest.raises(InputError, match="gamma and beta \\(affine"), tuned(Net(affine=False), x):
        pass
    with pytest.raises(InputError, match="does not"), tuned(net, x, lambda logits, v: torch.zeros(())):
        pass
    with (
        pytest.raises(InputError, match="finite number, got nan"),
        tuned(net, x, lambda logits, v: logits(v).sum() * torch.nan),
    ):
        pass
    with torch.inference_mode(), pytest.raises(InputError, match="inference_mode"), tuned(net, x):
        pass
    many = Net()
    many.multilabel = True
    with pytest.raises(InputError, match="independent findings"), tuned(many, x):
        pass


def test_steps_have_even_shares():
    assert [len(v) for v in batch_norm._parts(batch(13), 5)] == [5, 4, 4]
    assert len(batch_norms(Net())) == 2
