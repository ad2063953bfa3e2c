"""FullGrad: every bias is put where its cell is, and nothing is lost."""

import pytest
import torch
from torch import nn

from cfx.attribution import attribute
from cfx.attribution.fullgrad import spread
from tests.attribution.networks import images, weighted


@pytest.mark.parametrize("space", [(6, 5), (4, 6, 5)])
def test_what_is_spread_keeps_its_sum_and_its_place(space):
    part = torch.zeros(2, 3, *[2] * len(space))
    part[(0, 1, *[0] * len(space))] = 4.0
    found = spread(part, space)
    assert float(found[0].sum()) == pytest.approx(4.0)
    assert float(found[0, 0][(-1,) * len(space)]) == 0
    assert float(found[1].abs().sum()) == 0
    torch.testing.assert_close(spread(torch.ones(2, 3), space).flatten(1).sum(1), torch.tensor([3.0, 3.0]))


@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU, nn.GELU])
@pytest.mark.parametrize("norm", [lambda: nn.BatchNorm2d(4), lambda: nn.GroupNorm(2, 4)])
def test_it_is_complete_also_where_an_image_is_normalised_by_itself(act, norm):
    f = weighted(nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), norm(), act(), nn.Conv2d(4, 4, 3), act(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    ))  # fmt: skip
    found = attribute(f, images(2, (12, 12)), 1, method="fullgrad")
    assert float(found.completeness_error.max()) < 1e-3
    assert set(found.verdicts) <= {"complete", "incomplete"}
