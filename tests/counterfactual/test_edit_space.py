"""A latent generator edits codes, but the image it starts from is exact and the classifier is the one of images."""

import pytest
import torch
from torch import nn

from cfx.core.denoiser import Denoiser, Latent
from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.counterfactual import Minimal, explain
from cfx.counterfactual.edit_space import EditSpace
from cfx.counterfactual.guidance import Guided
from cfx.counterfactual.method import Meter, Problem
from cfx.models import build
from cfx.models.goal import Goal
from cfx.models.judge import Judge
from cfx.models.latent import LatentDiffusion
from tests.counterfactual.toys import ClassGaussian, Linear, blob, class_means, cohort


class Halved(nn.Module):
    """Codes are means of pairs of pixels along every axis; decoding repeats them: what they leave out is detail."""

    def encode(self, x):
        pool = nn.functional.avg_pool2d if x.ndim == 4 else nn.functional.avg_pool3d
        z = pool(x, 2)
        return z, torch.zeros_like(z)

    def decode(self, z):
        return nn.functional.interpolate(z, scale_factor=2, mode="nearest")


class Wrapped(Denoiser):
    """The closed-form classes of codes, as a denoiser."""

    def __init__(self, means):
        nn.Module.__init__(self)
        self.inner = ClassGaussian(means)
        self.schedule, self.classes, self.shape = self.inner.schedule, 2, None

    def forward(self, z_t, t, label=None):
        return self.inner(z_t, t, label)


def latent(space):
    coarse = Halved().encode(class_means(space))[0]
    return LatentDiffusion(Halved(), Wrapped(coarse))


@pytest.mark.parametrize("space", [(8, 8), (8, 8, 8)])
def test_the_null_edit_is_exact_ten_times_over(space):
    generator = latent(space)
    assert isinstance(generator, Latent)
    data = cohort(class_means(space), 2)
    x, judge, rows, zero = data.x, Judge(Linear(space)), torch.arange(2), torch.zeros(2)
    for _ in range(10):
        problem = Problem(
            x=x, source=data.y, target=1 - data.y, goal=Goal(zero), before=zero, row=rows, seed=0, judge=judge,
            generator=generator, meter=Meter(2), labelled=True,
        )  # fmt: skip
        x = Guided.of(Minimal(steps=3), problem).edit(rows, zero)
        assert (x - data.x).abs().max() <= 1e-5


@pytest.mark.parametrize("space", [(8, 8), (8, 8, 8)])
@pytest.mark.parametrize("depth", ["typical", "boundary"])
def test_counterfactuals_through_the_decoder(space, depth):
    data = cohort(class_means(space), 6)
    result = explain(data, Linear(space), latent(space), 1 - data.y, depth=depth, method=Minimal(copies=2))
    assert result.validity == 1.0
    assert (result.nfe_unet_backward > 0).all()  # of the decoder
    outside = ~result.edited.expand_as(result.x)
    assert torch.equal(result.x_cf[outside], result.x[outside])
    assert result.certified.all() or depth == "typical"


def test_the_gradient_is_that_of_the_whole_chain():
    space = (8, 8)
    data, generator, judge = cohort(class_means(space), 3), latent(space), Judge(Linear(space))
    rows = torch.arange(3)
    problem = Problem(
        x=data.x, source=data.y, target=1 - data.y, goal=Goal(torch.zeros(3)), before=torch.zeros(3), row=rows, seed=0,
        judge=judge, generator=generator, meter=Meter(3),
    )  # fmt: skip
    codes = EditSpace.of(problem)
    assert torch.equal(codes.remainder, data.x - generator.decode(generator.encode(data.x)))
    z = (codes.z + 0.1).requires_grad_(True)
    out = Linear(space)(generator.decode(z) + codes.remainder)
    sign = 2.0 * problem.target - 1
    (expected,) = torch.autograd.grad((sign * out).sum(), z)
    torch.testing.assert_close(codes.gradient(rows, z.detach()), expected)
    assert problem.meter.unet_backward.tolist() == [1, 1, 1]
    assert problem.meter.classifier_backward.tolist() == [1, 1, 1]


def test_a_trained_kind_of_autoencoder_and_unet_fit_together():
    vae = build("autoencoder-kl", spatial_dims=3, in_channels=1, patch=2, channels=[8, 8], latent_channels=2,
                attention=[False, False])  # fmt: skip
    shape = vae.latent_shape((48, 48, 48))
    unet = build("patch-unet", spatial_dims=3, in_channels=2, patch=2, channels=[8], attention=[False], features=2,
                 classes=2)  # fmt: skip
    schedule = Schedule.from_diffusers({"prediction_type": "v_prediction", "timestep_spacing": "trailing"})
    generator = LatentDiffusion(vae, Denoiser(unet, schedule, classes=2, shape=shape), scale=0.5)
    classifier = build("cnn", spatial_dims=3, in_channels=1, out_channels=1, channels=[4, 8])
    x = blob((48, 48, 48))[None] - 0.5
    result = explain(x, classifier, generator, method=Minimal(steps=2, trials=1, copies=1))
    outside = ~result.edited.expand_as(x)
    assert torch.equal(result.x_cf[outside], x[outside])
    assert int(result.nfe_unet_forward) > 6


def test_bad_parts_are_refused():
    with pytest.raises(InputError, match="autoencoder: expected encode and decode, got Linear"):
        LatentDiffusion(nn.Linear(2, 2), Wrapped(class_means((8, 8))))
    with pytest.raises(InputError, match="scale: expected a positive number, got 0"):
        LatentDiffusion(Halved(), Wrapped(class_means((8, 8))), scale=0.0)
