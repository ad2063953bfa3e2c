"""Occlusion of a linear model: a voxel's map is the mean over its windows of what they hold."""

import pytest
import torch
import torch.nn.functional as F

from cfx.attribution import attribute, build_attribution
from cfx.core.errors import InputError
from tests.attribution.networks import Linear, images


@pytest.mark.parametrize("space", [(6, 6), (4, 4, 4)])
def test_windows_side_by_side_hold_the_sum_of_what_they_cover(space):
    f, x, b = Linear(space), images(2, space), images(2, space, seed=3)
    found = attribute(f, x, 1, method=build_attribution("occlusion", patch=2), baseline=b).map
    pool = F.avg_pool2d if len(space) == 2 else F.avg_pool3d
    held = pool(f.w[1].detach() * (x - b), 2) * 2 ** len(space)
    for axis in range(2, 2 + len(space)):
        held = held.repeat_interleave(2, axis)
    torch.testing.assert_close(found, held, rtol=1e-3, atol=1e-4)


def test_windows_overlap_and_are_cut_off_at_the_border():
    f, x = Linear((5, 5)), images(1, (5, 5))
    made = build_attribution("occlusion", patch=(2, 3), stride=(2, 2))
    part = f.w[0, 0].detach() * x[0, 0]
    found = attribute(f, x, 0, method=made)
    assert int(found.nfe_classifier) == 1 + 3 * 2  # rows 0, 2, 4 and columns 0, 2
    assert float(found.map[0, 0, 4, 2]) == pytest.approx(
        float(part[4:, 0:3].sum() + part[4:, 2:5].sum()) / 2, rel=1e-3, abs=1e-4
    )


def test_sides_are_of_the_images_axes():
    with pytest.raises(InputError, match="patch: expected a whole number from 1, or one for each of 2 axes"):
        attribute(Linear(), images(1), 0, method=build_attribution("occlusion", patch=(2, 2, 2)))
