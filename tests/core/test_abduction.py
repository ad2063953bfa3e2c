import inspect

import pytest
import torch

from cfx.core.abduction import abduct, mean_of, replay
from cfx.core.denoiser import Denoiser
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform
from cfx.core.schedule import Schedule
from cfx.core.solvers import ancestral_mean, ddim_step, sample
from tests.core.closed_forms import ConvNetwork, PredictionNetwork, mixture

SPACES = [(8, 8), (4, 6, 5)]
ROW = torch.tensor([3, 0, 11, 7])


def images(space=(8, 8), b=4):
    return uniform((1, *space), seed=0, row=torch.arange(b), stream=0) * 2 - 1


def schedule(prediction="epsilon", **extra):
    return Schedule.from_diffusers({"prediction_type": prediction, "timestep_spacing": "trailing", **extra})


def conv(prediction="epsilon", dims=2, **extra):
    return Denoiser(ConvNetwork(dims=dims), schedule(prediction, **extra))


def there_and_back(denoiser, x, times):
    return replay(abduct(denoiser, x, times, seed=0, row=ROW[: len(x)]), mean_of(denoiser))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("steps", "tau"), [(1, 1), (10, 400), (50, 999)])
def test_null_edit_returns_the_image(steps, tau, space, prediction):
    denoiser, x = conv(prediction, dims=len(space)), images(space)
    times = denoiser.schedule.times(steps, tau)
    with torch.no_grad():
        y = there_and_back(denoiser, x, times)
        assert (y - x).abs().max() <= 1e-6
        for _ in range(9 if steps < 50 else 0):
            y = there_and_back(denoiser, y, times)
        assert (y - x).abs().max() <= 1e-6


def test_null_edit_in_double_precision():
    denoiser = mixture(schedule())
    x = images().double()
    assert (there_and_back(denoiser, x, denoiser.schedule.times(20, 600)) - x).abs().max() <= 1e-15


def test_ddim_inversion_is_not_exact():
    """What exact inversion is for: the plain one misses by far more than rounding."""
    denoiser, x = mixture(schedule()), images().double()
    times = denoiser.schedule.times(20, 600)
    y = sample(ddim_step, denoiser, sample(ddim_step, denoiser, x, times[::-1]), times)
    assert (y - x).abs().max() > 1e-3


def test_noise_maps_explain_zero_snr():
    denoiser, x = conv("v_prediction", rescale_betas_zero_snr=True), images()
    assert (there_and_back(denoiser, x, denoiser.schedule.times(20)) - x).abs().max() <= 1e-6


def test_states_are_drawn_independently_from_the_forward_process():
    denoiser, x = mixture(schedule()), images()
    maps = abduct(denoiser, x, [700, 300, 0], seed=5, row=ROW)
    level = denoiser.schedule
    x_700, x_300 = (
        level.alpha(t, x) * x + level.sigma(t, x) * normal((1, 8, 8), seed=5, row=ROW, stream=t) for t in (700, 300)
    )
    assert torch.equal(maps.x_tau, x_700)
    assert torch.equal(maps.x0_tau, denoiser(x_700, 700).mean)
    expected = x_300 - ancestral_mean(level, denoiser(x_700, 700).mean, x_700, 700, 300)
    torch.testing.assert_close(maps.residuals[0], expected)
    torch.testing.assert_close(maps.residuals[1], x - denoiser(x_300, 300).mean)


def test_maps_do_not_depend_on_the_batch_and_select_rows():
    denoiser, x = mixture(schedule()), images()
    every = abduct(denoiser, x, [700, 300, 0], seed=5, row=ROW)
    some = abduct(denoiser, x[[2, 0]], [700, 300, 0], seed=5, row=ROW[[2, 0]])
    for chosen in (every[[2, 0]], every[torch.tensor([2, 0])]):
        assert torch.equal(chosen.x_tau, some.x_tau)
        torch.testing.assert_close(chosen.x0_tau, some.x0_tau, atol=1e-6, rtol=0)
        torch.testing.assert_close(chosen.residuals, some.residuals, atol=1e-6, rtol=0)
        assert (replay(chosen, mean_of(denoiser)) - x[[2, 0]]).abs().max() <= 1e-6
    assert (len(every), len(some)) == (4, 2)
    assert torch.equal(every[ROW > 5].x_tau, every.x_tau[2:])


def test_a_shifted_estimate_shifts_the_image():
    """The last step returns its estimate plus its residual, so a shift of that estimate is a shift of the image."""
    denoiser, x = conv(), images()
    maps = abduct(denoiser, x, denoiser.schedule.times(10, 500), seed=0, row=ROW)
    means = {}
    replay(maps, lambda x_t, t, s: means.setdefault(t, denoiser(x_t, t).mean.detach()))
    shifted = replay(maps, lambda x_t, t, s: means[t] + 0.25)
    torch.testing.assert_close(shifted, x + 0.25, atol=1e-6, rtol=0)


def test_another_label_moves_the_image_to_its_class():
    closed = mixture(schedule())
    denoiser = Denoiser(PredictionNetwork(closed), closed.schedule, classes=2)
    z = normal((1, 8, 8), seed=0, row=torch.arange(4), stream=0)
    x, first, second = -0.5 + 0.15 * z, torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    times = closed.schedule.times(50, 950)
    maps = abduct(denoiser, x, times, seed=0, row=ROW, label=first)
    y, null = (replay(maps, mean_of(denoiser, label)) for label in (second, first))
    assert (null - x).abs().max() <= 1e-6
    # the truth under the quantile-keeping map is 0.4 + 0.2 z; replay keeps the details z
    assert y.mean().item() == pytest.approx(0.4, abs=0.06)
    assert torch.corrcoef(torch.stack([y.flatten(), z.flatten()]))[0, 1] > 0.9


def test_abduction_needs_no_gradient():
    denoiser, x = conv(), images()
    maps = abduct(denoiser, x, [500, 0], seed=0, row=ROW)
    assert not maps.x_tau.requires_grad
    assert not maps.residuals.requires_grad


@pytest.mark.parametrize("times", [[500], [500, 10], [500, 600, 0], [1001, 0], [0, 500]])
def test_grids_that_do_not_end_at_data_are_refused(times):
    denoiser, x = mixture(schedule()), images()
    with pytest.raises(InputError, match="times: expected a grid that decreases from at most 1000 to 0"):
        abduct(denoiser, x, times, seed=0, row=ROW)


def test_another_number_of_counters_is_refused():
    denoiser, x = mixture(schedule()), images()
    with pytest.raises(InputError, match="row: expected one counter for each of 4 rows, got 3"):
        inspect.unwrap(abduct)(denoiser, x, [500, 0], seed=0, row=ROW[:3])
