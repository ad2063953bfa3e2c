"""Masks as states and as logits, and the trunk that all samplers are shown the image by."""

import itertools

import pytest
import torch

from cfx.core.errors import InputError
from cfx.models.samplers.conditioned import (
    Beside,
    Trunk,
    likeliest,
    log_likelihood,
    mask_of,
    one_hot,
    state_channels,
    state_of,
)
from tests.models.networks import PATCH, randomise


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("space", [(4, 6), (2, 3, 4)])
def test_a_state_is_its_mask(classes, space):
    y = torch.randint(0, classes, (7, *space), dtype=torch.uint8)
    state = state_of(y, classes)
    assert state.shape == (7, state_channels(classes), *space)
    assert set(state.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(mask_of(state), y)
    assert torch.equal(mask_of(state + 0.9 * (2 * torch.rand_like(state) - 1)), y)  # the nearest one
    assert torch.equal(one_hot(y, classes).argmax(1), y.long())
    assert torch.equal(one_hot(y, classes).sum(1), torch.ones_like(y, dtype=torch.float))


def test_two_classes_are_one_bit():
    assert state_channels(2) == 1
    assert torch.equal(state_of(torch.tensor([[[0, 1]]], dtype=torch.uint8), 2), torch.tensor([[[[-1.0, 1.0]]]]))


@pytest.mark.parametrize("classes", [2, 3])
def test_likelihoods_of_all_masks_add_up_to_one(classes):
    logits = 2 * torch.randn(1, classes - 1, 2, 2, dtype=torch.float64)
    every = torch.tensor(list(itertools.product(range(classes), repeat=4)), dtype=torch.uint8).view(-1, 2, 2)
    p = log_likelihood(logits.expand(len(every), -1, -1, -1), every).exp()
    assert float(p.sum()) == pytest.approx(1, rel=1e-6)
    assert torch.equal(every[int(p.argmax())], likeliest(logits)[0])


def test_a_likelihood_is_that_of_a_categorical_variable_whose_background_has_logit_zero():
    logits, y = torch.randn(3, 2, 4, 5), torch.randint(0, 3, (3, 4, 5), dtype=torch.uint8)
    law = torch.distributions.Categorical(logits=torch.cat([torch.zeros(3, 1, 4, 5), logits], 1).movedim(1, -1))
    torch.testing.assert_close(log_likelihood(logits, y), law.log_prob(y).sum((1, 2)))


def test_a_trunk_is_a_denoiser_of_the_registry():
    trunk = randomise(Trunk(2, 3, 5, PATCH))
    assert trunk.multiple == 4
    x, t = torch.randn(2, 3, 8, 8), torch.zeros(2, dtype=torch.long)
    assert trunk(x).shape == (2, 5, 8, 8)
    torch.testing.assert_close(trunk(x), trunk(x, t))
    assert not torch.allclose(trunk(x), trunk(x, t + 100))
    torch.testing.assert_close(Beside(trunk, x[:, :1])(x[:, 1:], t), trunk(x, t))
    with pytest.raises(InputError, match="spatial sizes divisible by 4"):
        trunk(torch.randn(1, 3, 6, 8))


def test_other_networks_are_refused_by_name():
    with pytest.raises(InputError, match=r"network\.name: expected a denoiser, got cnn, a classifier"):
        Trunk(2, 1, 1, {"name": "cnn"})
    with pytest.raises(InputError, match=r"expected one of .*'patch-unet'"):
        Trunk(2, 1, 1, {"channels": [8]})
    with pytest.raises(InputError, match=r"network patch-unet: unknown keys \['widths'\]"):
        Trunk(2, 1, 1, {"name": "patch-unet", "widths": [8]})
