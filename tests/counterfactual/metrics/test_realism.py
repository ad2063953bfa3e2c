"""Named feature spaces."""

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.counterfactual.metrics import FeatureSpace, Neighbours, penultimate
from cfx.models import build


def test_penultimate_features_are_what_the_head_reads() -> None:
    torch.manual_seed(0)
    network = build("cnn", spatial_dims=2, in_channels=1, out_channels=3, channels=[4, 8])
    x = normal((1, 16, 16), seed=1, row=torch.arange(70), stream=0).clamp(-1, 1)
    space = penultimate(network, "a small classifier")
    found = space(x)
    assert space.name == "a small classifier"
    assert found.shape == (70, 8)
    assert found.dtype == torch.float64
    torch.testing.assert_close(network.head(found.float()), network(x))
    assert network.training  # left as it was


def test_features_that_are_no_vectors_are_refused() -> None:
    with pytest.raises(InputError, match="maps"):
        FeatureSpace("maps", lambda x: x)(torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize("space", [(6, 6), (4, 4, 4)])
def test_the_nearest_real_image_against_brute_force(space: tuple[int, ...]) -> None:
    real, x = (normal((1, *space), seed=2, row=torch.arange(n), stream=s).clamp(-1, 1) for n, s in ((9, 0), (4, 1)))
    found = Neighbours.of(Cohort(real))
    assert found is not None
    distance = torch.stack([torch.stack([(a - b).norm() for b in real]) for a in real])
    apart = distance.masked_fill(torch.eye(9).bool(), torch.inf).amin(1).mean()
    wanted = torch.stack([min((a - b).norm() for b in real) for a in x]) / apart
    torch.testing.assert_close(found.nearest(x).float(), wanted, rtol=1e-4, atol=1e-4)
    assert found.nearest(real).abs().max() < 1e-2


def test_images_of_one_subject_are_no_neighbours() -> None:
    real = normal((1, 4, 4), seed=3, row=torch.arange(4), stream=0).clamp(-1, 1).repeat_interleave(2, 0)
    twice = Cohort(real, covariates={"subject": torch.arange(4).repeat_interleave(2)})
    once = Neighbours.of(Cohort(real[::2]))
    assert once is not None
    found = Neighbours.of(twice)
    assert found is not None
    assert found.apart == pytest.approx(once.apart, rel=1e-4)
    assert Neighbours.of(Cohort(real[:1])) is None
    assert Neighbours.of(Cohort(real[:2])) is None  # one image twice
