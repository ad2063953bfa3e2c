import itertools
import json
import math

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.core.schedule import Schedule

CONFIGS = {
    "default": {},
    "short": {"num_train_timesteps": 50},
    "stable-diffusion": {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "steps_offset": 1,
        "timestep_spacing": "leading",
    },
    "cosine-v": {
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    },
    "zero-snr": {
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    },
    "trained": {
        "num_train_timesteps": 3,
        "trained_betas": [0.1, 0.2, 0.5],
        "prediction_type": "sample",
        "timestep_spacing": "linspace",
    },
}


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def test_table_is_that_of_diffusers(config):
    theirs = DDIMScheduler(**config)
    ours = Schedule.from_diffusers(theirs.config)
    assert len(theirs.alphas_cumprod) == ours.T
    # theirs is computed in single precision
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod.double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("theirs", [DDIMScheduler, DDPMScheduler])
def test_round_trip_through_json_and_diffusers(config, theirs):
    ours = Schedule.from_diffusers(theirs(**config).config)
    written = json.loads(json.dumps(ours.to_diffusers()))
    back = Schedule.from_diffusers(written)
    assert back.to_diffusers() == written
    assert torch.equal(back.alphas_cumprod, ours.alphas_cumprod)
    assert (back.prediction, back.spacing, back.steps_offset) == (ours.prediction, ours.spacing, ours.steps_offset)
    loaded = theirs.from_config(written)
    assert {k: loaded.config[k] for k in config} == config
    assert torch.equal(loaded.alphas_cumprod, theirs(**config).alphas_cumprod)


def test_a_bare_table_is_written_as_betas_with_clipping_off():
    ours = Schedule(torch.tensor([0.9, 0.5, 0.0], dtype=torch.float64), prediction="v", spacing="trailing")
    loaded = DDIMScheduler.from_config(ours.to_diffusers())
    torch.testing.assert_close(loaded.alphas_cumprod.double(), ours.alphas_cumprod, atol=1e-7, rtol=0)
    assert (loaded.config.prediction_type, loaded.config.timestep_spacing) == ("v_prediction", "trailing")
    assert loaded.config.clip_sample is False


def test_unknown_keys_survive():
    assert Schedule.from_diffusers({"thresholding": True, "mine": "kept"}).to_diffusers()["mine"] == "kept"


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("n", [2, 7, 10, 50, 999, 1000])
def test_times_are_those_of_diffusers(spacing, n):
    theirs = DDIMScheduler(timestep_spacing=spacing)
    theirs.set_timesteps(n)
    assert Schedule.from_diffusers(theirs.config).times(n) == [*(theirs.timesteps + 1).tolist(), 0]


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize(("n", "start"), [(1, 1), (1, 400), (20, 400), (37, 601), (400, 400), (3, 1000)])
def test_times_from_a_start(spacing, n, start):
    times = Schedule.from_diffusers({"timestep_spacing": spacing}).times(n, start)
    assert (len(times), times[0], times[-1]) == (n + 1, start, 0)
    assert all(t > s for t, s in itertools.pairwise(times))


def test_levels():
    ours = Schedule(torch.tensor([0.64, 0.36, 0.0], dtype=torch.float64), prediction="v")
    like = torch.zeros(4, 1, 2, 2, 2)
    t = torch.tensor([0, 1, 2, 3])
    assert ours.alpha(t, like).shape == (4, 1, 1, 1, 1)
    np.testing.assert_allclose(ours.alpha(t, like).flatten(), [1, 0.8, 0.6, 0], atol=1e-7)
    np.testing.assert_allclose(ours.sigma(t, like).flatten(), [0, 0.6, 0.8, 1], atol=1e-7)
    for i in range(4):
        assert ours.alpha(i, like) == ours.alpha(t, like)[i].item()
        assert ours.sigma(i, like) == ours.sigma(t, like)[i].item()
    assert ours.alpha(1, like.double()).item() == 0.8
    assert [ours.log_snr(i) for i in range(4)] == pytest.approx(
        [math.inf, math.log(4 / 3), -math.log(4 / 3), -math.inf]
    )
    assert ours.zero_snr
    assert not Schedule.from_diffusers({}).zero_snr


def test_noised_is_diffusers_forward_process_at_a_time_of_its_own_for_every_row(config):
    theirs = DDIMScheduler(**config)
    ours = Schedule.from_diffusers(theirs.config)
    x, eps = (normal((1, 3, 2), seed=1, row=torch.arange(3), stream=s) for s in range(2))
    t = torch.tensor([1, 2, ours.T])
    found = ours.noised(x, t, eps)
    # theirs subtracts from one in single precision, which near t = 0 leaves few digits of sigma
    torch.testing.assert_close(found, theirs.add_noise(x, eps, t - 1), atol=1e-4, rtol=0)
    for i, time in enumerate(t.tolist()):
        assert torch.equal(ours.noised(x[i : i + 1], time, eps[i : i + 1]), found[i : i + 1])
    assert torch.equal(ours.noised(x, 0, eps), x)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"beta_schedule": "sigmoid"}, r"beta_schedule: expected .*got 'sigmoid'"),
        ({"prediction_type": "flow_prediction"}, "prediction_type: expected .*got 'flow_prediction'"),
        ({"timestep_spacing": "even"}, "spacing: expected .*got 'even'"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "got flow matching"),
        ({"trained_betas": [0.1, float("nan")]}, "alphas_cumprod: expected"),
        ({"trained_betas": [0.1, 0.0]}, "alphas_cumprod: expected"),
    ],
)
def test_foreign_configurations_are_refused(config, message):
    with pytest.raises(InputError, match=message):
        Schedule.from_diffusers(config)


@pytest.mark.parametrize(("n", "start"), [(0, None), (11, None), (5, 4), (1, 0), (1, 11)])
def test_grids_that_do_not_fit_are_refused(n, start):
    with pytest.raises(InputError, match="expected"):
        Schedule.from_diffusers({"num_train_timesteps": 10, "timestep_spacing": "trailing"}).times(n, start)


def test_an_offset_beyond_the_table_is_refused():
    with pytest.raises(InputError, match="steps_offset 1"):
        Schedule.from_diffusers({"num_train_timesteps": 10, "steps_offset": 1}).times(10)


@pytest.mark.parametrize("t", [-1, 1001])
def test_times_outside_the_schedule_are_refused(t):
    with pytest.raises(InputError, match=r"t: expected a time in 0 \.\. 1000, got"):
        Schedule.from_diffusers({}).alpha(t, torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("key", "meant"),
    [("beta_shedule", "beta_schedule"), ("beta_strat", "beta_start"), ("Beta_End", "beta_end"),
     ("num_train_timestep", "num_train_timesteps"), ("predicton_type", "prediction_type"),
     ("timesteps_spacing", "timestep_spacing"), ("step_offset", "steps_offset")],
)  # fmt: skip
def test_a_misspelt_key_is_refused_and_the_right_one_named(key, meant):
    with pytest.raises(InputError, match=f"config: expected the keys of a scheduler, got '{key}'; is {meant} meant"):
        Schedule.from_diffusers({key: 1, "clip_sample": False})


def test_misspelt_keys_of_monai_are_refused():
    with pytest.raises(
        InputError, match="scheduler: expected the keys of a scheduler, got 'shedule'; is schedule meant"
    ):
        Schedule.from_monai({"shedule": "cosine"})


def test_the_other_keys_of_diffusers_and_monai_are_no_misspelt_ones():
    others = (
        "clip_sample", "clip_sample_range", "set_alpha_to_one", "set_alpha_to_zero", "thresholding", "skip_prk_steps",
        "dynamic_thresholding_ratio", "sample_max_value", "variance_type", "solver_order", "algorithm_type", "eta",
        "solver_type", "lower_order_final", "euler_at_final", "use_karras_sigmas", "use_exponential_sigmas",
        "use_beta_sigmas", "use_lu_lambdas", "final_sigmas_type", "lambda_min_clipped", "interpolation_type",
        "original_inference_steps", "timestep_scaling", "timestep_type", "predict_x0", "disable_corrector", "solver_p",
        "predictor_order", "corrector_order", "tau_func", "noise_sampler_seed", "use_dynamic_shifting", "flow_shift",
        "time_shift_type", "_diffusers_version", "noise_offset", "my_own",
    )  # fmt: skip
    given = dict.fromkeys(others) | {"timestep_type": "discrete", "_class_name": "DDIMScheduler"}
    assert Schedule.from_diffusers(given).T == 1000
    monai = (
        "_target_",
        "_requires_",
        "_disabled_",
        "variance_type",
        "clip_sample",
        "clip_sample_min",
        "set_alpha_to_one",
    )
    given = dict.fromkeys(monai) | {"_target_": "monai.networks.schedulers.DDPMScheduler"}
    assert Schedule.from_monai(given).T == 1000


@pytest.mark.parametrize("beta_schedule", ["linear", "squaredcos_cap_v2", "scaled_linear"])
def test_the_time_of_a_noise_level_is_the_nearest(beta_schedule):
    schedule = Schedule.from_diffusers({"beta_schedule": beta_schedule})
    like = torch.zeros(())
    every = torch.stack([schedule.sigma(t, like) for t in range(1, schedule.T + 1)])
    for sigma in (1e-6, 0.273, 0.506, 0.774, 0.960, 0.998, 1.0):
        t = schedule.time_of(sigma)
        assert 1 <= t <= schedule.T
        assert float((every[t - 1] - sigma).abs()) == pytest.approx(float((every - sigma).abs().min()), abs=1e-6)
    assert all(schedule.time_of(float(schedule.sigma(t, like))) == t for t in (5, 100, 560))


@pytest.mark.parametrize(("steps", "respaced", "last", "sigma"), [
    (500, 200, 60, 0.774), (500, 50, 5, 0.273), (500, 25, 5, 0.506), (1000, 1000, 750, 0.998), (1000, 200, 100, 0.960),
    (1000, 1000, 400, 0.897),
])  # fmt: skip
def test_the_levels_that_published_step_numbers_stand_for(steps, respaced, last, sigma):
    """A linear schedule of so many steps, respaced, begun at the `last` one from the end."""
    betas = torch.linspace(0.1 / steps, 20 / steps, steps, dtype=torch.float64)
    index = round((last - 1) * (steps - 1) / (respaced - 1))
    assert float((1 - (1 - betas).cumprod(0)[index]).sqrt()) == pytest.approx(sigma, abs=1.5e-3)


@pytest.mark.parametrize("sigma", [0.0, -0.1, 1.5, float("nan")])
def test_no_time_has_such_a_level(sigma):
    with pytest.raises(InputError, match="sigma: expected a noise level"):
        Schedule.from_diffusers().time_of(sigma)
