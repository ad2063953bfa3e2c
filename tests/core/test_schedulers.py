"""Tables of other packages' schedulers: those of one family are read as they are, all others are refused."""

import inspect
import warnings

import diffusers.schedulers
import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, PNDMScheduler, RFlowScheduler

from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.core.schedulers import DIFFUSERS, diffusers_table

NAMES = sorted(name for name in dir(diffusers.schedulers) if name.endswith("Scheduler"))


def made(name):
    """A scheduler of diffusers with its defaults; skipped where it has none, or needs a package that is absent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return getattr(diffusers.schedulers, name)()
        except (TypeError, ImportError, AttributeError) as error:
            pytest.skip(str(error).strip()[:80])


@pytest.mark.parametrize("name", NAMES)
def test_every_scheduler_of_diffusers_is_read_as_its_own_table_or_refused(name):
    theirs = made(name)
    if not hasattr(theirs, "config"):
        pytest.skip("no configuration")
    table = getattr(theirs, "alphas_cumprod", None)
    whole = dict(theirs.config)
    bare = {"_class_name": name}
    for config in (whole, whole | bare, bare):
        if name in DIFFUSERS:
            ours = torch.from_numpy(diffusers_table(config))
            torch.testing.assert_close(ours, table.double(), atol=1e-5, rtol=0)
        else:
            with pytest.raises(InputError, match=r"expected a (variance-preserving )?scheduler"):
                Schedule.from_diffusers(config)


@pytest.mark.parametrize("name", DIFFUSERS)
def test_every_name_is_one_of_diffusers(name):
    assert inspect.isclass(getattr(diffusers.schedulers, name))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_train_timesteps": 1000, "use_discrete_timesteps": False}, "got the keys .*use_discrete_timesteps"),
        ({"sigma_data": 0.5, "sigma_min": 0.002, "prediction_type": "epsilon"}, "got the keys .*sigma_data"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "expected discrete time steps"),
        ({"_class_name": "EulerDiscreteScheduler", "sigma_max": 700.0}, "got the keys .*sigma_max"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "got flow matching"),
        ({"_class_name": "DPMSolverPlusPlus"}, "expected a scheduler with a table of betas, .*got DPMSolverPlusPlus"),
        ({"shift": 3.0, "num_train_timesteps": 1000}, "got the keys .*shift"),
    ],
)
def test_settings_of_other_families_are_refused(config, message):
    with pytest.raises(InputError, match=message):
        Schedule.from_diffusers(config)


KEYWORDS = [
    {},
    {"num_train_timesteps": 50, "schedule": "scaled_linear_beta", "beta_start": 0.0005, "beta_end": 0.0195},
    {"schedule": "sigmoid_beta", "sig_range": 4, "prediction_type": "v_prediction"},
    {"schedule": "cosine", "s": 0.01, "prediction_type": "sample"},
]


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler, PNDMScheduler])
@pytest.mark.parametrize("keywords", KEYWORDS)
def test_monai_s_schedulers_and_their_keywords_give_the_same_schedule(kind, keywords):
    if kind is PNDMScheduler and keywords.get("prediction_type") == "sample":
        pytest.skip("PNDM predicts no image")
    theirs = kind(**keywords)
    target = {"_target_": f"monai.networks.schedulers.{kind.__name__}"}
    for ours in (Schedule.from_monai(theirs), Schedule.from_monai(keywords), Schedule.from_monai(keywords | target)):
        torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod.double(), atol=1e-5, rtol=0)
        wanted = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
        assert ours.prediction == wanted[keywords.get("prediction_type", "epsilon")]
        assert len(theirs.alphas_cumprod) == Schedule.from_diffusers(ours.to_diffusers()).T


def test_noise_is_added_as_monai_does():
    theirs, x, eps = DDPMScheduler(schedule="cosine"), torch.rand(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    t = torch.tensor([1, 400, 1000])
    ours = Schedule.from_monai(theirs).noised(x, t, eps)
    torch.testing.assert_close(ours, theirs.add_noise(x, eps, t - 1), atol=1e-4, rtol=0)


def test_times_are_monai_s():
    theirs = DDIMScheduler(num_train_timesteps=100)
    theirs.set_timesteps(7)
    assert Schedule.from_monai(theirs).times(7) == [*(theirs.timesteps + 1).tolist(), 0]


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (RFlowScheduler(), "expected one of MONAI's .*got RFlowScheduler"),
        ({"_target_": "monai.networks.schedulers.RFlowScheduler"}, "expected one of MONAI's .*got RFlowScheduler"),
        ({"schedule": "linear"}, r"scheduler.schedule: expected linear_beta, .*got 'linear'"),
        ({"prediction_type": "flow"}, r"scheduler.prediction_type: expected one of .*got 'flow'"),
        ("DDPMScheduler", "expected one of MONAI's .*got str"),
    ],
)
def test_what_is_no_such_scheduler_of_monai_is_refused(scheduler, message):
    with pytest.raises(InputError, match=message):
        Schedule.from_monai(scheduler)
