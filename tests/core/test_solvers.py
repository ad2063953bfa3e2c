import itertools
import math

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

from cfx.core.denoiser import Denoiser
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.core.schedule import Schedule
from cfx.core.solvers import Ancestral, ancestral_mean, ancestral_std, ddim_step, ddpm_step, dpmpp_step, sample
from tests.core.closed_forms import PredictionNetwork, gaussian, mixture

SCHEDULE = Schedule.from_diffusers({"timestep_spacing": "trailing"})


def noise(space=(4, 4), b=6, stream=0):
    return normal((1, *space), seed=0, row=torch.arange(b), stream=stream).double()


def order(solver, denoiser, first, last):
    """Observed order of convergence of the flow from time `first` to time `last`, from three grids."""
    x = denoiser.transport(noise(), 1000, first)
    exact = denoiser.transport(x, first, last)
    errors = []
    for n in (20, 40, 80):
        times = [first + (last - first) * i // n for i in range(n + 1)]
        errors.append((sample(solver, denoiser, x, times) - exact).abs().max().item())
    assert errors[2] < 0.01
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


@pytest.mark.parametrize("make", [gaussian, mixture])
@pytest.mark.parametrize(("first", "last"), [(600, 200), (200, 600)])
@pytest.mark.parametrize(("solver", "expected"), [(ddim_step, 1), (dpmpp_step, 2)])
def test_order_of_convergence(solver, expected, make, first, last):
    observed = order(solver, make(SCHEDULE), first, last)
    assert observed == pytest.approx([expected, expected], abs=0.1)


@pytest.mark.parametrize("space", [(4, 4), (3, 4, 2)])
@pytest.mark.parametrize(("solver", "bound"), [(ddim_step, 0.1), (dpmpp_step, 0.03)])
def test_inversion_and_sampling_follow_the_flow_from_and_to_data(solver, bound, space):
    denoiser = mixture(SCHEDULE)
    x = denoiser.transport(noise(space), 1000, 0)
    times = SCHEDULE.times(100, 500)
    inverted = sample(solver, denoiser, x, times[::-1])
    assert (inverted - denoiser.transport(x, 0, 500)).abs().max() < bound
    assert (sample(solver, denoiser, inverted, times) - x).abs().max() < bound / 2


def test_inversion_over_every_time_passes_the_first_noise_level():
    """From data the network answers as at time 1, so the steps 0 -> 1 -> 2 know only one estimate."""
    denoiser = mixture(SCHEDULE)
    x = denoiser.transport(noise(), 1000, 0)
    inverted = sample(dpmpp_step, denoiser, x, range(61))
    assert (inverted - denoiser.transport(x, 0, 60)).abs().max() < 0.005


def schedulers(theirs, **extra):
    """A diffusers scheduler and ours with the very same table."""
    scheduler = theirs(**extra)
    ours = Schedule.from_diffusers(scheduler.config)
    return scheduler, Schedule(scheduler.alphas_cumprod.double(), ours.prediction, ours.spacing, ours.steps_offset)


def compare(scheduler, schedule, solver, n, space=(4, 4), atol=2e-6, **step_args):
    """Both trajectories through the same network, compared at every step."""
    network = PredictionNetwork(mixture(schedule))
    denoiser = Denoiser(network, schedule)
    scheduler.set_timesteps(n)
    times = [*(scheduler.timesteps + 1).tolist(), 0]
    x = y = noise(space)
    past = None
    for t, s in itertools.pairwise(times):
        q = denoiser(x, t)
        x, past = solver(schedule, q, t, s, past), (q.mean, t)
        out = network(y, torch.full((len(y),), t - 1))
        y = scheduler.step(out, t - 1, y, return_dict=False, **step_args)[0].double()
        torch.testing.assert_close(x, y, atol=atol, rtol=atol)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("n", [5, 50])
def test_ddim_equals_diffusers(prediction, spacing, n):
    args = {"prediction_type": prediction, "timestep_spacing": spacing, "clip_sample": False}
    compare(*schedulers(DDIMScheduler, **args), ddim_step, n)


def test_ddim_equals_diffusers_at_zero_snr_and_in_3d():
    args = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    compare(*schedulers(DDIMScheduler, clip_sample=False, **args), ddim_step, 10, space=(2, 3, 4))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("n", [5, 25])
def test_dpmpp_equals_diffusers(prediction, spacing, n):
    args = {"prediction_type": prediction, "timestep_spacing": spacing}
    compare(*schedulers(DPMSolverMultistepScheduler, **args), dpmpp_step, n, atol=1e-5)


@pytest.mark.parametrize("solver", [ddim_step, dpmpp_step, Ancestral(0, torch.arange(6))])
def test_zero_snr_is_finite_and_ends_near_the_data(solver):
    schedule = Schedule.from_diffusers({"prediction_type": "sample", "rescale_betas_zero_snr": True})
    denoiser = mixture(schedule)
    x = sample(solver, denoiser, noise(), schedule.times(20, schedule.T))
    assert ((0.5 + x).abs() < 0.9).logical_or((x - 0.4).abs() < 1).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ddpm_equals_diffusers(prediction):
    scheduler, schedule = schedulers(DDPMScheduler, prediction_type=prediction, clip_sample=False)
    scheduler.set_timesteps(20)
    network, x = PredictionNetwork(mixture(schedule)), noise()
    times = [*(scheduler.timesteps + 1).tolist(), 0]
    for t, s in itertools.pairwise(times):
        out = network(x, torch.full((len(x),), t - 1))
        theirs = scheduler.step(out, t - 1, x, generator=torch.Generator().manual_seed(t), return_dict=False)[0]
        draw = torch.randn(x.shape, generator=torch.Generator().manual_seed(t), dtype=x.dtype)
        x = ddpm_step(schedule, Denoiser(network, schedule)(x, t), t, s, draw)
        torch.testing.assert_close(x, theirs, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize(("t", "s"), [(1000, 999), (1000, 300), (700, 1), (2, 1), (5, 0), (1000, 0)])
def test_ancestral_jumps_keep_the_marginals(t, s, zero_snr):
    """If x_t ~ N(alpha_t x, sigma_t^2), one jump of any length gives x_s ~ N(alpha_s x, sigma_s^2)."""
    schedule = Schedule.from_diffusers({"prediction_type": "sample", "rescale_betas_zero_snr": zero_snr})
    x, z = noise(b=1), noise(b=1, stream=1)
    alpha_t, sigma_t = schedule.alpha(t, x), schedule.sigma(t, x)
    centre = ancestral_mean(schedule, x, alpha_t * x, t, s)
    torch.testing.assert_close(centre, schedule.alpha(s, x) * x)
    kept = (ancestral_mean(schedule, x, alpha_t * x + sigma_t * z, t, s) - centre) / z
    variance = kept**2 + ancestral_std(schedule, t, s) ** 2
    torch.testing.assert_close(variance, torch.full_like(x, schedule.sigma(s, x).item() ** 2))


def test_the_last_ancestral_step_returns_the_estimate_bit_for_bit():
    x0, x_t = noise().float(), noise(stream=1).float()
    assert torch.equal(ancestral_mean(SCHEDULE, x0, x_t, 17, 0), x0)
    assert ancestral_std(SCHEDULE, 17, 0) == 0


def ancestral_spread(schedule, times, std):
    """Exact standard deviation that the ancestral chain gives Gaussian data: every step is linear in x_t."""
    variance = 1.0
    for t, s in itertools.pairwise(times):
        square = schedule.alpha_squared(t)
        gain = std**2 * square**0.5 / (square * std**2 + 1 - square)  # of the posterior mean
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        step = ancestral_mean(schedule, gain * one, one, t, s).item()
        variance = step**2 * variance + ancestral_std(schedule, t, s) ** 2
    return variance**0.5


def test_ancestral_sampling_reproduces_the_data():
    row, times = torch.arange(3000), SCHEDULE.times(100)
    x = normal((1, 2, 2), seed=1, row=row, stream=1000)
    x = sample(Ancestral(1, row), gaussian(SCHEDULE, 0.3, 0.4), x, times)
    assert x.mean().item() == pytest.approx(0.3, abs=0.015)
    assert x.std().item() == pytest.approx(ancestral_spread(SCHEDULE, times, 0.4), rel=0.025)
    # the spread missing after few steps is that of x given x_t; it vanishes as the grid is refined
    assert ancestral_spread(SCHEDULE, SCHEDULE.times(1000), 0.4) == pytest.approx(0.4, rel=0.015)


def test_ancestral_noise_follows_the_row():
    x = noise().float()
    every = sample(Ancestral(3, torch.arange(6)), mixture(SCHEDULE), x, SCHEDULE.times(10))
    some = sample(Ancestral(3, torch.tensor([4, 1])), mixture(SCHEDULE), x[[4, 1]], SCHEDULE.times(10))
    assert torch.equal(some, every[[4, 1]])


@pytest.mark.parametrize("times", [[5], [5, 5], [5, 3, 4], []])
def test_grids_that_are_not_monotone_are_refused(times):
    with pytest.raises(InputError, match="times: expected at least two, strictly increasing or decreasing"):
        sample(ddim_step, gaussian(SCHEDULE), noise(), times)


@pytest.mark.parametrize(("t", "s"), [(5, 5), (5, 6), (0, 0), (1001, 3), (5, -1)])
def test_ancestral_steps_must_go_down(t, s):
    with pytest.raises(InputError, match="expected a time in"):
        ancestral_mean(SCHEDULE, noise(), noise(), t, s)
