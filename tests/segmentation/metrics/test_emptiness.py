"""How often a mask is empty, against how often it should be."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.random import uniform
from cfx.segmentation.metrics import empty_ece, empty_share

N = 2000


def coins(p, s: int = 16):
    """Masks of one voxel that are empty with these probabilities."""
    return uniform((s, 1, 1), seed=0, row=torch.arange(len(p)), stream=0) >= p[:, None, None, None]


def test_shares_count_masks_of_any_class():
    masks = torch.zeros(1, 4, 2, 2, dtype=torch.uint8)
    masks[0, 1, 0, 0], masks[0, 2, 1, 1] = 2, 1
    assert empty_share(masks).tolist() == [0.5]
    assert empty_share(masks.bool()).tolist() == [0.5]


def test_the_true_sampler_is_calibrated_with_few_samples():
    p = torch.linspace(0, 1, N)
    assert empty_ece(coins(p, 4), p) < 0.02
    assert empty_ece(coins(p, 4)[:, [0, 0, 1, 1]], p) > 0.06  # halves that are the same: what splitting avoids


def test_an_error_is_found_with_its_size():
    p = torch.linspace(0, 0.8, N)
    assert empty_ece(coins(p + 0.2), p) == pytest.approx(0.2, abs=0.02)
    assert empty_ece(torch.ones(N, 2, 1, 1, dtype=torch.bool), p) == pytest.approx(0.4, abs=1e-6)
    swapped = torch.where(torch.arange(N) % 2 == 0, 0.2, 0.8)
    assert empty_ece(coins(swapped, 64), 1 - swapped) == pytest.approx(0.6, abs=0.02)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="two samples"):
        empty_ece(torch.ones(3, 1, 2, 2, dtype=torch.bool), torch.zeros(3))
    with pytest.raises(InputError, match="one of each image"):
        empty_ece(torch.ones(3, 2, 2, 2, dtype=torch.bool), torch.zeros(2))
