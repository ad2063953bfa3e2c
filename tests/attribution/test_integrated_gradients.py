"""Integrated gradients: exact for sums over voxels, refined where they are not complete, cheap where they are."""

import pytest
import torch

from cfx.attribution import attribute, build_attribution
from cfx.core.errors import InputError
from tests.attribution.networks import Linear, images


def cubic(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x.flatten(1).pow(3).sum(1), -x.flatten(1).sum(1)], 1)


def test_of_a_sum_over_voxels_each_gets_its_own_change():
    x, b = images(2), images(2, seed=4)
    found = attribute(cubic, x, 0, baseline=b)
    torch.testing.assert_close(found.map, x**3 - b**3, atol=2e-3, rtol=0)
    assert found.verdicts == ("complete", "complete")


def test_a_row_that_is_not_complete_gets_points_where_they_are_needed():
    def sharp(x: torch.Tensor) -> torch.Tensor:  # all of the change within a thousandth of the way
        return torch.stack([torch.tanh(1000 * x.flatten(1).mean(1)), x.flatten(1).sum(1)], 1)

    x = images(2).abs()
    coarse = attribute(sharp, x, 0, method=build_attribution("integrated-gradients", most=0))
    assert coarse.verdicts == ("incomplete", "incomplete")
    assert coarse.nfe_classifier_backward.tolist() == [48, 48]
    fine = attribute(sharp, x, 0)
    assert fine.verdicts == ("complete", "complete")
    assert int(fine.nfe_classifier_backward.max()) < 400
    assert attribute(Linear(), x, 0).nfe_classifier_backward.tolist() == [48, 48]


def test_steps_are_whole_numbers():
    with pytest.raises(InputError, match="steps: expected a whole number from 1, got 0"):
        attribute(Linear(), images(1), 0, method=build_attribution("integrated-gradients", steps=0))
