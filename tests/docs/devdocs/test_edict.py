"""EDICT is exact, as cfx's own inversion is, and follows the probability flow; what it is measured for stays true."""

import pytest
import torch
from edict import edict_invert, edict_replay

from cfx.core.abduction import mean_of
from cfx.core.denoiser import Denoiser
from cfx.core.errors import InputError
from cfx.core.random import normal
from tests.core.closed_forms import ConvNetwork, PredictionNetwork, mixture
from tests.core.test_abduction import SPACES, images, schedule


def there_and_back(denoiser, x, times):
    return edict_replay(edict_invert(denoiser, x, times, mean_of(denoiser)), mean_of(denoiser))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("steps", "tau"), [(1, 1), (10, 400), (50, 999)])
def test_null_edit_returns_the_image(steps, tau, space):
    denoiser, x = Denoiser(ConvNetwork(dims=len(space)), schedule()), images(space)
    with torch.no_grad():
        y = there_and_back(denoiser, x, denoiser.schedule.times(steps, tau))
    assert (y - x).abs().max() <= 1e-6


def test_null_edit_in_double_precision():
    denoiser, x = mixture(schedule()), images().double()
    assert (there_and_back(denoiser, x, denoiser.schedule.times(20, 600)) - x).abs().max() <= 1e-12


def test_another_label_moves_the_image_to_its_class():
    closed = mixture(schedule())
    denoiser = Denoiser(PredictionNetwork(closed), closed.schedule, classes=2)
    z = normal((1, 8, 8), seed=0, row=torch.arange(4), stream=0)
    first, second = (mean_of(denoiser, torch.full((4,), k)) for k in (0, 1))
    state = edict_invert(denoiser, -0.5 + 0.15 * z, closed.schedule.times(50, 950), first)
    assert not state.pair.requires_grad
    y = edict_replay(state, second)
    # the truth under the quantile-keeping map is 0.4 + 0.2 z
    assert y.mean().item() == pytest.approx(0.4, abs=0.06)
    assert torch.corrcoef(torch.stack([y.flatten(), z.flatten()]))[0, 1] > 0.9


def test_it_follows_the_probability_flow():
    denoiser, x = mixture(schedule()), images().double()
    exact = denoiser.transport(x, 0, 500)
    errors = [
        (edict_invert(denoiser, x, schedule().times(n, 500), mean_of(denoiser), mix=1.0).pair - exact).abs().max()
        for n in (25, 100)
    ]
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.06


def test_wrong_calls_are_refused():
    denoiser, x = mixture(schedule()), images()
    with pytest.raises(InputError, match="times: expected a grid that decreases from at most 1000 to 0"):
        edict_invert(denoiser, x, [500, 600, 0], mean_of(denoiser))
    with pytest.raises(InputError, match="mix: expected a weight in"):
        edict_invert(denoiser, x, [500, 0], mean_of(denoiser), mix=0.0)
    zero = mixture(schedule("sample", rescale_betas_zero_snr=True))
    with pytest.raises(InputError, match="below the zero-SNR time 1000, got 1000"):
        edict_invert(zero, x, [1000, 0], mean_of(zero))
