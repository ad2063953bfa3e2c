"""A generator that knows its images beats the linear estimates of a pixel; one that does not is named."""

import pytest
import torch
from torch import nn

from cfx.core.denoiser import Posterior
from cfx.core.random import normal
from cfx.core.schedule import Schedule
from cfx.models.denoising import LEVELS, Denoising, denoising, key, level_time, trivial_errors
from tests.counterfactual.toys import ClassGaussian, blob, class_means, cohort

SPACES = [(8, 8), (8, 8, 8), (32, 32, 32)]


class Behaved:
    """Another generator, whose estimate is done something to."""

    def __init__(self, inside, change):
        self.inside, self.change = inside, change
        self.schedule, self.classes, self.shape = inside.schedule, inside.classes, inside.shape

    def __call__(self, x_t, t, label=None):
        q = self.inside(x_t, t, label)
        return Posterior(self.change(q), q.x_t, q.alpha, q.sigma)


def mirrored(generator):
    return Behaved(generator, lambda q: q.mean.flip(-1))


STRANGERS = {
    "mirrors": mirrored,
    "gives its input back": lambda generator: Behaved(generator, lambda q: q.x_t / q.alpha),
    "sees no image": lambda generator: Behaved(generator, lambda q: torch.zeros_like(q.mean)),
    "knows another organ": lambda generator: ClassGaussian(0.9 - generator.means),
    "knows no numbers": lambda generator: Behaved(generator, lambda q: q.mean * torch.nan),
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("n", [1, 8])
def test_the_exact_generator_is_below_the_linear_estimates_at_every_level(space, n):
    means = class_means(space)
    for seed in range(4):
        x, others = cohort(means, n, seed).x, cohort(means, 40, seed + 50).x
        for beside in (None, others, others[:3]):
            found = denoising(ClassGaussian(means), x, beside)
            assert found.doubt({}) is None
            assert max(found.ratios) < 1.2
            assert (found.pixel[0] < 1) == (beside is others)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_generator_that_does_not_know_the_images_is_named(space, stranger):
    means = class_means(space)
    generator = STRANGERS[stranger](ClassGaussian(means))
    found = denoising(generator, cohort(means, 8).x, cohort(means, 40, 1).x)
    assert found.doubt({}).startswith("does not know these images: at noise level 0.")


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_an_untrained_network_is_named_without_any_other_image(dims, seed):
    means = class_means((8,) * dims)
    torch.manual_seed(seed)
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims](1, 1, 3, padding=1).requires_grad_(False)
    untrained = Behaved(ClassGaussian(means), lambda q: conv(q.x_t))
    assert denoising(untrained, cohort(means, 8).x).doubt({}) is not None


def test_the_linear_estimate_has_the_error_of_its_formula():
    schedule = Schedule.from_diffusers()
    generator = ClassGaussian(class_means((64, 64)), schedule=schedule)
    for v in (0.01, 0.3):
        z = v**0.5 * normal((1, 64, 64), seed=1, row=torch.arange(64), stream=5)
        for level in LEVELS:
            t = level_time(schedule, level)
            alpha, sigma = schedule.alpha(t, z), schedule.sigma(t, z)
            assert float(sigma) >= level > float(schedule.sigma(t - 1, z))
            found = trivial_errors(generator, z, torch.zeros(1, 1, 1), torch.full((1, 1, 1), v), level=level)
            expected = v * sigma**2 / (alpha**2 * v + sigma**2)
            torch.testing.assert_close(found.mean(), expected, rtol=0.01, atol=0)


def test_the_same_images_get_the_same_errors():
    means = class_means((8, 8))
    x = cohort(means, 8).x
    assert denoising(ClassGaussian(means), x) == denoising(ClassGaussian(means), x)


def test_its_own_card_is_what_coarse_errors_are_compared_with():
    known = Denoising((0.1, 0.1, 0.1, 0.1), (1.0,) * 4, (1.0,) * 4, (0.0,) * 4, 4096)
    card = {key(level): 0.1 for level in LEVELS}
    assert known.doubt({}) is known.doubt(card) is None
    assert known.doubt(card | {key(0.1): 0.001}) is None  # a grainier image does that
    assert "10 times worse than the held-out images" in known.doubt(card | {key(0.9): 0.01})
    assert known.beyond({}) == 0


class Codes(ClassGaussian):
    """A latent generator of codes that are the images, or no longer."""

    lost = False

    def encode(self, x):
        return x

    def decode(self, z):
        return z * 0 + blob(tuple(z.shape[2:])) if self.lost else z


def test_an_autoencoder_that_gives_back_something_else_is_named():
    means = class_means((8, 8))
    generator = Codes(means)
    assert denoising(generator, cohort(means, 8).x).doubt({}) is None

    class Lossy(Codes):
        lost = True

    assert "its autoencoder returns something else" in denoising(Lossy(means), cohort(means, 8).x).doubt({})
