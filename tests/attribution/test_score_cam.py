"""Score-CAM: channels are weighted by the output of the image seen through them."""

import pytest
import torch
from torch import nn

from cfx.attribution import attribute
from tests.attribution.networks import images


class Two(nn.Module):
    """Two channels: the left and the right half of the image; the output is the sum over the left half."""

    def __init__(self) -> None:
        super().__init__()
        self.halves = nn.Conv2d(1, 2, 1, bias=False)
        self.last = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(1, 2, 4, 4)
        mask[:, 0, :, :2] = mask[:, 1, :, 2:] = 1
        seen = self.last(self.halves(torch.ones_like(x)) * mask)
        left = 10 * x[..., :2].flatten(1).sum(1)
        return torch.stack([left, -left], 1) + 0 * seen.flatten(1).sum(1, keepdim=True)


def test_the_channel_that_the_output_is_seen_through_wins():
    torch.manual_seed(0)
    f = Two()
    f.halves.weight.data.fill_(1.0)
    x = images(1, (4, 4)).abs() / 2 + 0.5
    found = attribute(f, x, 0, method="score-cam")
    assert found.map[0, 0, 0].tolist() == pytest.approx([1.0, 1.0, 0.0, 0.0], abs=1e-6)
    assert found.nfe_classifier.tolist() == [1 + 2 + 1 + 1]  # maps, two channels, the baseline, the output
