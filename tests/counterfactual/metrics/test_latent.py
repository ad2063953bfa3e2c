"""CLD on a latent that is the image itself, IM1 and IM2 on autoencoders that only scale."""

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform
from cfx.counterfactual.metrics import im1, im2, latent_divergence
from cfx.counterfactual.metrics.latent import _divergences
from tests.counterfactual.metrics.hand_made import result_of


class Pixels:
    """Latent posterior N(x, 1)."""

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, torch.ones_like(x)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z


def constant(*levels: float) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()


# x = 0: real images of its class at distances .1 to .4, those of the target class at .5 to .8
REFERENCE = Cohort(
    constant(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), y=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), classes=["a", "b"]
)


@pytest.mark.parametrize(
    ("level", "near", "far"), [(0.0, 0.0, 1.0), (0.25, 0.0, 0.5), (0.45, 0.0, 0.0), (0.65, 0.5, 0.0), (0.9, 1.0, 0.0)]
)
def test_cld_by_hand(level: float, near: float, far: float) -> None:
    found = latent_divergence(result_of(constant(0.0), constant(level)), Pixels(), REFERENCE)
    assert found[0] == pytest.approx(math.log(0.8 * math.exp(near) + 0.2 * math.exp(far)))


def test_the_least_sufficient_edit_beats_doing_nothing_and_doing_too_much() -> None:
    found = latent_divergence(result_of(constant(0, 0, 0), constant(0.45, 0.0, 0.9)), Pixels(), REFERENCE)
    assert found[0] == pytest.approx(0)
    assert found[1] == pytest.approx(math.log(0.8 + 0.2 * math.e))
    assert found[2] > found[1]


def test_divergences_are_torchs() -> None:
    m, m2 = (normal((5,), seed=1, row=torch.arange(n), stream=n).double() for n in (3, 4))
    s, s2 = (uniform((5,), seed=1, row=torch.arange(n), stream=n).double() + 0.01 for n in (3, 4))
    wanted = kl_divergence(Normal(m[:, None], s[:, None]), Normal(m2, s2)).sum(2)
    torch.testing.assert_close(_divergences(m, s, m2, s2), wanted)


def test_im1_is_the_ratio_of_the_reconstruction_errors() -> None:
    result = result_of(constant(0, 0), constant(0.5, -0.25))
    # errors: 0.9 x for class 0, 0.3 x for class 1
    classes = [lambda x: 0.1 * x, lambda x: 0.7 * x]
    assert im1(result, classes).tolist() == pytest.approx([(0.3 / 0.9) ** 2] * 2, rel=1e-5)
    back = replace(result, target=1 - result.target, probs_before=result.probs_before.flip(1))
    assert im1(back, classes).tolist() == pytest.approx([(0.9 / 0.3) ** 2] * 2, rel=1e-5)


def test_im2_is_relative_to_the_size_of_the_image() -> None:
    result = result_of(constant(0, 0), constant(0.5, -0.25))
    found = im2(result, [lambda x: 0 * x, lambda x: 0.7 * x], lambda x: 0.9 * x)
    # (0.2 x)^2 summed over 16 pixels, over 16 |x|
    assert found.tolist() == pytest.approx([0.04 * 0.5, 0.04 * 0.25], rel=1e-5)
    assert im2(result, [lambda x: 0 * x, lambda x: x], lambda x: x).tolist() == [0, 0]


def test_rows_of_different_classes_meet_their_own_autoencoder() -> None:
    result = result_of(constant(0, 0), constant(0.5, 0.5))
    mixed = replace(result, target=torch.tensor([0, 1]), probs_before=torch.tensor([[0.2, 0.8], [0.8, 0.2]]))
    found = im1(mixed, [lambda x: 0.1 * x, lambda x: 0.7 * x])
    assert found.tolist() == pytest.approx([9, 1 / 9], rel=1e-5)


def test_bad_input_is_named() -> None:
    result = result_of(constant(0.0), constant(0.5))
    with pytest.raises(InputError, match="by_class"):
        im1(result, [lambda x: x])
    for reference in (replace(REFERENCE, y=None), REFERENCE[:4]):
        with pytest.raises(InputError, match="reference"):
            latent_divergence(result, Pixels(), reference)
