from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cfx.core.denoiser import Denoiser, Generative
from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from tests.core.closed_forms import PredictionNetwork, mixture

PREDICTIONS = ["epsilon", "v_prediction", "sample"]


def noised(space=(4, 5), b=3):
    return torch.randn(b, 1, *space, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("space", [(4, 5), (2, 3, 4)])
@pytest.mark.parametrize("t", [1, 500, 1000, torch.tensor([1, 40, 1000])])
def test_every_prediction_gives_the_same_posterior(prediction, space, t):
    schedule = Schedule.from_diffusers({"prediction_type": prediction})
    closed, x_t = mixture(schedule), noised(space)
    q, exact = Denoiser(PredictionNetwork(closed), schedule)(x_t, t), closed(x_t, t)
    for name in ("mean", "eps", "v"):
        torch.testing.assert_close(getattr(q, name), getattr(exact, name), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(q.alpha * q.mean + q.sigma * q.eps, x_t)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_zero_snr_is_finite_and_returns_the_prior_mean(prediction):
    schedule = Schedule.from_diffusers({"prediction_type": prediction, "rescale_betas_zero_snr": True})
    closed, x_t = mixture(schedule), noised()
    q = Denoiser(PredictionNetwork(closed), schedule)(x_t, schedule.T)
    torch.testing.assert_close(q.mean, torch.full_like(x_t, 0.4 * -0.5 + 0.6 * 0.4))
    torch.testing.assert_close(q.eps, x_t)


def test_noise_prediction_with_zero_snr_is_refused():
    with pytest.raises(InputError, match="zero terminal SNR expects prediction 'v' or 'x0', got 'epsilon'"):
        Denoiser(nn.Identity(), Schedule.from_diffusers({"rescale_betas_zero_snr": True}))


def test_a_replaced_mean_carries_eps_and_v():
    schedule = Schedule.from_diffusers({})
    q = mixture(schedule)(noised(), 300)
    guided = replace(q, mean=q.mean + 0.1)
    torch.testing.assert_close(guided.eps - q.eps, torch.full_like(q.mean, -0.1) * q.alpha / q.sigma)
    torch.testing.assert_close(guided.v, guided.alpha * guided.eps - guided.sigma * guided.mean)


class Spy(nn.Module):
    """Records how the network is called."""

    def forward(self, x, **kwargs):
        self.kwargs = kwargs
        return torch.zeros_like(x)


def test_the_network_is_called_with_the_index_and_label_of_diffusers():
    spy, x = Spy(), noised()
    denoiser = Denoiser(spy, Schedule.from_diffusers({}), classes=2)
    assert isinstance(denoiser, Generative)
    denoiser(x, 7)
    assert spy.kwargs["timesteps"].tolist() == [6, 6, 6]
    assert spy.kwargs["class_labels"].tolist() == [2, 2, 2]  # the null label
    denoiser(x, torch.tensor([1, 2, 1000]), torch.tensor([0, 1, 2]))
    assert spy.kwargs["timesteps"].tolist() == [0, 1, 999]
    assert spy.kwargs["class_labels"].tolist() == [0, 1, 2]
    Denoiser(spy, Schedule.from_diffusers({}))(x, 7)
    assert set(spy.kwargs) == {"timesteps"}


def test_a_tensor_subclass_does_not_leave_the_network():
    class Tagged(torch.Tensor):
        pass

    class Tagging(nn.Module):
        def forward(self, x, timesteps):
            return x.as_subclass(Tagged)

    q = Denoiser(Tagging(), Schedule.from_diffusers({"prediction_type": "sample"}))(noised(), 3)
    assert type(q.mean) is torch.Tensor


@pytest.mark.parametrize(
    ("x", "t", "label", "message"),
    [
        (torch.zeros(2, 3, 4, 4), 5, None, r"x_t: expected images of shape .* \(1, 4, 4\), got \(3, 4, 4\)"),
        (torch.zeros(2, 1, 4, 5), 5, None, r"x_t: expected images of shape .* \(1, 4, 4\), got \(1, 4, 5\)"),
        (torch.zeros(2, 1, 4, 4), 0, None, r"t: expected a time in 1 \.\. 1000, got 0"),
        (torch.zeros(2, 1, 4, 4), torch.tensor([1, 1001]), None, r"t: expected a time in 1 \.\. 1000, got 1001"),
        (torch.zeros(2, 1, 4, 4), 5, torch.tensor([0, 3]), r"label: expected classes 0 \.\. 2 .*got \[0, 3\]"),
        (torch.zeros(2, 1, 4, 4), 5, torch.tensor([-1, 0]), r"label: expected classes 0 \.\. 2 .*got \[-1, 0\]"),
    ],
)
def test_wrong_calls_are_refused(x, t, label, message):
    denoiser = Denoiser(Spy(), Schedule.from_diffusers({}), classes=2, shape=(1, 4, 4))
    with pytest.raises(InputError, match=message):
        denoiser(x, t, label)


def test_labels_for_an_unconditional_network_are_refused():
    with pytest.raises(InputError, match="label: expected None, this denoiser is unconditional"):
        Denoiser(Spy(), Schedule.from_diffusers({}))(noised(), 5, torch.tensor([0, 0, 0]))


def test_a_network_of_another_shape_is_refused():
    class Doubling(nn.Module):
        def forward(self, x, timesteps):
            return torch.cat([x, x], 1)

    with pytest.raises(InputError, match=r"network: expected an output of shape \(3, 1, 4, 5\), got \(3, 2, 4, 5\)"):
        Denoiser(Doubling(), Schedule.from_diffusers({}))(noised(), 5)


class Diffusers(nn.Module):
    """diffusers' call: `timestep`, and an output with `.sample`."""

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        y = sample * timestep[:, None, None, None].double() / 1000 + (0 if class_labels is None else class_labels.sum())
        return SimpleNamespace(sample=y)


def test_diffusers_call_is_as_good():
    class Monai(nn.Module):
        def forward(self, x, timesteps, class_labels=None):
            return Diffusers()(x, timesteps, class_labels).sample

    schedule, x, t = Schedule.from_diffusers({}), noised(), torch.tensor([1, 40, 1000])
    for classes, label in ((None, None), (2, torch.tensor([0, 1, 1]))):
        mine, theirs = (Denoiser(net, schedule, classes)(x, t, label).mean for net in (Diffusers(), Monai()))
        torch.testing.assert_close(mine, theirs)


def test_a_unet_of_diffusers_is_a_denoiser():
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, num_class_embeds=3,
    ).eval()  # fmt: skip
    x, t, label = torch.randn(2, 1, 8, 8), torch.tensor([1, 700]), torch.tensor([0, 1])
    q = Denoiser(unet, Schedule.from_diffusers({"prediction_type": "sample"}), classes=2)
    with torch.no_grad():
        torch.testing.assert_close(q(x, t, label).mean, unet(x, t - 1, class_labels=label).sample)
        torch.testing.assert_close(q(x, t).mean, unet(x, t - 1, class_labels=torch.tensor([2, 2])).sample)


class NeedsText(nn.Module):
    def forward(self, sample, timestep, encoder_hidden_states):
        return sample


class NoTime(nn.Module):
    def forward(self, x):
        return x


class NoLabels(nn.Module):
    def forward(self, x, timesteps):
        return x


@pytest.mark.parametrize(
    ("network", "classes", "call"), [(NeedsText(), None, ""), (NoTime(), None, ""), (NoLabels(), 2, ", class_labels")]
)
def test_a_network_that_cannot_be_called_so_is_refused_when_built(network, classes, call):
    name = type(network).__name__
    with pytest.raises(InputError, match=rf"called as network\(x, timesteps=\.\.\.{call}.*, got {name}\("):
        Denoiser(network, Schedule.from_diffusers({}), classes)


def test_a_network_s_own_error_is_one_line():
    class Breaks(nn.Module):
        def forward(self, x, timesteps):
            raise AssertionError("only 96 x 96\nimages")

    with pytest.raises(InputError, match=r"^network: failed on images of shape \(3, 1, 4, 5\): only 96 x 96 images$"):
        Denoiser(Breaks(), Schedule.from_diffusers({}))(noised(), 5)


@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: torch.compile(n, backend="eager"), torch.jit.script])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_compiled_and_scripted_networks_are_called_likewise(wrap):
    class Plain(nn.Module):
        def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            return x * timesteps[:, None, None, None]

    x, schedule = noised(), Schedule.from_diffusers({"prediction_type": "sample"})
    torch.testing.assert_close(Denoiser(wrap(Plain()), schedule)(x, 7).mean, x * 6)


def test_what_a_network_says_of_sizes_is_checked_when_built():
    network = NoLabels()
    network.multiple = 4
    denoiser = Denoiser(network, Schedule.from_diffusers({}), shape=(1, 8, 12))
    assert denoiser.multiple == 4
    with pytest.raises(InputError, match=r"shape: expected spatial sizes divisible by 4, got \(8, 10\)"):
        Denoiser(network, Schedule.from_diffusers({}), shape=(1, 8, 10))


@pytest.mark.parametrize(("rows", "classes", "right"), [(3, 2, True), (2, 2, False), (3, None, False), (5, 9, False)])
def test_a_table_of_labels_needs_a_row_for_none(rows, classes, right):
    network = Diffusers()
    network.class_embedding = nn.Embedding(rows, 4)
    if right:
        assert Denoiser(network, Schedule.from_diffusers({}), classes).classes == classes
        return
    with pytest.raises(
        InputError, match=rf"classes: expected {rows - 1}, if the last of the {rows} labels .*{classes}"
    ):
        Denoiser(network, Schedule.from_diffusers({}), classes)


@pytest.mark.parametrize("name", ["class_embedding", "num_class_embeds"])
def test_a_network_that_would_ignore_labels_is_refused(name):
    network = Diffusers()
    setattr(network, name, None)
    Denoiser(network, Schedule.from_diffusers({}))
    with pytest.raises(InputError, match="classes: expected None, the network embeds no labels and would ignore them"):
        Denoiser(network, Schedule.from_diffusers({}), 2)
