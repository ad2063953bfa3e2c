"""DeepLIFT: the rescale rule by hand, and networks with maxima, batch normalisation and other activations."""

import pytest
import torch
from torch import nn

from cfx.attribution import attribute
from tests.attribution.networks import images, weighted


def test_the_rescale_rule_by_hand():
    def f(x: torch.Tensor) -> torch.Tensor:  # relu(x1 + x2 - 1) of the first two voxels
        a = torch.relu(x.flatten(1)[:, :2].sum(1) - 1)
        return torch.stack([a, -a], 1)

    x, b = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    x[0, 0, 0] = torch.tensor([0.9, 0.6])
    found = attribute(f, x, 0, method="deeplift", baseline=b)
    # the output rises by 0.5 while its argument rises by 1.5: each voxel gets a third of its change
    torch.testing.assert_close(found.map[0, 0], torch.tensor([[0.3, 0.2], [0.0, 0.0]]))


@pytest.mark.parametrize("act", [nn.ReLU, nn.PReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Softplus, nn.LeakyReLU])
def test_it_is_complete_for_activations_and_maxima(act):
    f = weighted(nn.Sequential(
        nn.Conv3d(1, 3, 3), nn.BatchNorm3d(3), act(), nn.MaxPool3d(2), nn.Conv3d(3, 4, 2), act(),
        nn.AdaptiveMaxPool3d(1), nn.Flatten(), nn.Linear(4, 2),
    ))  # fmt: skip
    found = attribute(f, images(2, (8, 8, 8)), 1, method="deeplift", baseline="black")
    assert found.verdicts == ("complete", "complete")
    assert found.nfe_classifier_backward.tolist() == [2, 2]
