"""Our detector: errors at few levels against a generator that knows exactly what it should."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.geometry import smooth
from cfx.core.scores import auroc, average_precision
from cfx.data import BrainConfig, load_cohort
from cfx.data.ladder import RUNGS
from cfx.ood import build_detector, fit
from cfx.ood.denoising import Usual, complexity, maps_of
from cfx.ood.detector import Ask, Tools
from tests.ood.detectors import SCHEDULE, GaussianGenerator, cohort, images

FITTED = {}


def fitted():
    if not FITTED:
        FITTED["one"] = fit(cohort(120), generator=GaussianGenerator())
    return FITTED["one"]


@pytest.mark.parametrize("deviation", [0.05, 0.5])
def test_both_smaller_and_larger_errors_are_unusual(deviation):
    score = fitted().score(torch.cat([images(40, seed=7), images(40, seed=8, deviation=deviation)])).score
    assert float(auroc(score[None], torch.arange(80)[None] >= 40)) > 0.99


def test_a_place_that_is_not_restored_is_found_and_shown():
    # a generator that gives back its mean: else the estimate shows the place, and explains it
    large = fit(cohort(80, space=(24, 24)), generator=GaussianGenerator(variance=1e-4))
    x = images(40, seed=7, space=(24, 24))
    x[20:, 0, 6:9, 14:17] = 1.0
    found = large.score(x)
    assert float(auroc(found.score[None], torch.arange(40)[None] >= 20)) > 0.95
    truth = torch.zeros(20, 24, 24, dtype=torch.bool)
    truth[:, 6:9, 14:17] = True
    area = average_precision(found.map[20:].flatten(1), truth.flatten(1))
    assert float(area.mean()) > 20 * float(truth.double().mean())


def test_in_three_dimensions():
    """Simulated volumes: a bright ball in the brain is found and shown, with two evaluations an image."""
    base = BrainConfig(kind="brain", n=24, seed=5, size=32, dims=3)
    inside, marked = load_cohort(base), RUNGS["dark-lesion"].make(base.model_copy(update={"n": 6, "start": 100}))
    made = build_detector("denoising", levels=(0.6,), clean=(0.2,))
    fitted = fit(inside, made, generator=GaussianGenerator(float(inside.x.mean()), float(inside.x.var())))
    found = fitted.score(marked)
    assert found.map.shape == (6, 1, 32, 32, 32)
    assert found.nfe_unet_forward.tolist() == [2] * 6
    area = average_precision(found.map.flatten(1), marked.lesion.flatten(1))
    assert float(area.mean()) > 5 * float(marked.lesion.double().mean())


def test_the_score_of_an_image_is_two_sided_plus_one_sided():
    found = fitted().score(images(9, seed=3))
    two, one = found.statistics["two_sided"], found.statistics["one_sided"]
    assert torch.allclose(found.score, two + one.clamp_min(0) ** 2, atol=1e-5)


def test_maps_of_fitted_images_leave_themselves_out():
    maps = torch.randn(9, 4, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    maps[:, 1:] = 0  # no picture to explain them
    usual, rows = Usual.of(maps), torch.arange(9)
    out = [Usual.of(maps[rows != i]) for i in range(9)]
    alone = torch.cat([u.of_others(maps[i : i + 1]) for i, u in enumerate(out)])
    left_out = torch.stack([u.corrected(maps[i : i + 1])[0] for i, u in enumerate(out)])
    assert torch.allclose(usual.corrected(maps) * 9 / 8, left_out, atol=1e-5)
    believed = torch.stack([u.deviation for u in out]) > 1.1 * usual.least
    assert torch.allclose(usual.within(maps)[believed], alone[believed], atol=1e-4)


def test_what_the_picture_explains_is_taken_out():
    r = torch.randn(6, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    maps = torch.cat([3 * r + 1, r], 1)
    usual = Usual.of(maps)
    assert float(usual.corrected(maps).abs().max()) < 0.02
    assert float(usual.slope[0, 0]) == pytest.approx(3, rel=0.01)


def test_clean_levels_see_the_image_alone():
    """Of a normal prior, q - x at a clean level is (gain alpha - 1) x in every pixel: no draw is in it."""
    x, generator = images(3), GaussianGenerator()
    made = build_detector("denoising", levels=(), clean=(0.5,), widths=(1e-6,))
    maps = [made.maps(Ask(x, Tools(generator=generator)), seed) for seed in (0, 1)]
    assert torch.equal(*maps)
    t = SCHEDULE.time_of(0.5)
    alpha, sigma = SCHEDULE.alpha(t, x), SCHEDULE.sigma(t, x)
    gain = alpha * 0.04 / (alpha**2 * 0.04 + sigma**2)
    assert torch.allclose(maps[0][:, 0, 2, 0], (gain * alpha * x)[:, 0], atol=1e-5)


def test_maps_are_those_of_the_formula():
    q, x = images(3, seed=1), images(3, seed=2)
    error = smooth(smooth(q - x, 1.5).square(), 1.0).log()
    edges = smooth(sum(g.square() for g in torch.gradient(q, dim=(2, 3))), 1.5)
    value = smooth(q, 1.5)
    expected = torch.cat([error, (edges + 1e-4).log(), value, value.square()], 1)
    assert torch.allclose(maps_of(q, x, 1.5), expected, atol=1e-5)


def test_a_latent_generator_is_asked_about_codes_and_its_map_is_of_the_image():
    class Halves(GaussianGenerator):
        """Codes are images of half the size."""

        def encode(self, x):
            return torch.nn.functional.avg_pool2d(x, 2)

        def decode(self, z):
            return torch.nn.functional.interpolate(z, scale_factor=2)

    found = fit(cohort(40, space=(16, 16)), generator=Halves()).score(images(5, space=(16, 16)))
    assert found.map.shape == (5, 1, 16, 16)
    assert found.nfe_autoencoder.tolist() == [1] * 5


def test_complexity_is_the_log_of_squared_differences():
    ramp = torch.linspace(-1, 1, 9).view(1, 1, 1, 9).expand(1, 1, 9, 9)
    expected = torch.log(torch.tensor([(0.25 * j) ** 2 / 2 for j in (1, 2, 4)]))
    assert torch.allclose(complexity(ramp)[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"levels": (), "clean": ()},
        {"levels": (0.5, 0.2)},
        {"clean": (0.2, 1.0)},
        {"levels": (0.0, 0.5)},
        {"widths": (0.0,)},
        {"widths": ()},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match="expected"):
        build_detector("denoising", **settings)
