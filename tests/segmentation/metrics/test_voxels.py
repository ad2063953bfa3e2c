"""Metrics of single voxels and volumes: known answers and limits."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.segmentation.metrics import consensus_dice, ncc, reader_calibration, volume_crps
from tests.segmentation.metrics.brute import random_masks


def line(*masks: str) -> torch.Tensor:
    """Masks of one image from rows of 0 and 1."""
    return torch.tensor([[[int(c) for c in m]] for m in masks]).bool()[None]


def test_uncertainty_where_readers_differ_correlates():
    readers = line("1100", "1110")
    assert float(ncc(line("1100", "1110"), readers)) == pytest.approx(1)
    assert float(ncc(line("1100", "1101"), readers)) == pytest.approx((1 + 1 / 33**0.5) / 2)  # 1 against the first
    assert ncc(line("1100", "1100"), readers).tolist() == [0.5]  # constant, as is its error against the first reader


def test_consensus_leaves_out_what_readers_do_not_share():
    readers = line("11000", "11100")
    assert consensus_dice(line("11000", "11100"), readers).tolist() == [1]
    assert consensus_dice(line("11100", "11100"), readers).tolist() == [1]
    assert consensus_dice(line("10001", "10001"), readers).tolist() == [0.5]
    assert consensus_dice(line("10000", "00001"), line("11111", "00000")).tolist() == [1]  # nothing is agreed on
    assert consensus_dice(line("10000", "01000"), line("11000", "11000")).tolist() == [1]  # half is most


def test_volume_in_its_own_units():
    samples, readers = line("1111", "1111"), line("1000", "1110")
    assert volume_crps(samples, readers).tolist() == [2]  # of a forecast that is certain, the mean error
    assert volume_crps(samples, readers, voxel=0.5).tolist() == [1]
    assert volume_crps(line("1000", "1110"), readers).tolist() == [0.5]
    assert volume_crps(line("1000", "1110"), readers, form="u").tolist() == [0]
    with pytest.raises(InputError, match="at least 2 samples"):
        volume_crps(samples[:, :1], readers, form="u")


def test_shares_of_samples_against_shares_of_readers():
    readers = random_masks(6, 4, 3, (5, 5), seed=3)
    assert reader_calibration(readers, readers, 3).ece == pytest.approx(0)
    found = reader_calibration(line("1100"), line("1000", "1000"), bins=2)
    assert found.count.tolist() == [2, 2]
    assert found.accuracy.tolist() == [0, 0.5]
    assert (found.ece, found.ace) == (0.25, 0.25)
