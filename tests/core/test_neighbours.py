"""The nearest real image."""

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.core.neighbours import Neighbours
from cfx.core.random import normal


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


def test_who_was_far_before_did_not_stray() -> None:
    found = Neighbours(torch.zeros(1, 4), 2.0)
    before, after = torch.tensor([[0.1], [4.0], [4.0]]), torch.tensor([[3.0], [4.0], [8.0]])
    images = [v.expand(3, 4).reshape(3, 1, 2, 2) for v in (before, after)]  # of length 2 v
    assert found.strayed(*images).tolist() == pytest.approx([3.0, 1.0, 2.0])
