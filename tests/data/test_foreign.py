"""Images of other things: on the grid that is asked for, by one way of resampling, and the same for a row each time."""

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.resize import resized
from cfx.data.foreign import FOREIGN, brought, foreign, inverted, matched, turned


@pytest.mark.parametrize("name", FOREIGN)
def test_every_set_comes_on_the_grid_and_row_by_row(name):
    found = foreign(name, 5, (3, 28, 28), seed=1)
    assert found.shape == (3, 28, 28)
    assert torch.equal(found.x[:, 0], found.x[:, 2])
    assert torch.allclose(foreign(name, 2, (3, 28, 28), seed=1).x, found.x[:2])
    assert not torch.allclose(foreign(name, 5, (3, 28, 28), seed=2).x, found.x)
    assert len(found.x.flatten(1).unique(dim=0)) > 1


@pytest.mark.parametrize("name", sorted({*FOREIGN} - {"noise", "constant"}))
def test_pictures_are_no_volumes(name):
    with pytest.raises(InputError, match="pictures"):
        foreign(name, 2, (1, 8, 8, 8))


def test_noise_and_constants_are_volumes_too():
    assert foreign("noise", 2, (1, 8, 8, 8)).x.std() > 0.1
    assert foreign("constant", 2, (1, 8, 8, 8)).x.flatten(1).std(1).max() == 0


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="name: expected one of"):
        foreign("cats", 2, (1, 8, 8))


def test_images_are_cut_square_and_resized_by_the_one_rule():
    x = torch.rand(2, 3, 20, 30) * 2 - 1
    assert torch.allclose(brought(x, (3, 10, 10)), resized(x[..., 5:25], 10))
    assert torch.allclose(brought(x, (1, 20, 20)), x[..., 5:25].mean(1, keepdim=True), atol=1e-6)
    assert brought(x, (3, 10, 12)).shape == (2, 3, 10, 12)
    with pytest.raises(InputError, match="axes"):
        brought(x, (1, 8, 8, 8))


def test_matched_images_have_the_intensities_of_the_others():
    like = torch.rand(2, 1, 16, 16).square() * 2 - 1
    found = matched(torch.rand(3, 1, 16, 16) * 2 - 1, like)
    assert torch.allclose(found[0].flatten().sort().values, like[0].flatten().sort().values, atol=1e-5)
    assert torch.allclose(found[2].flatten().sort().values, like[0].flatten().sort().values, atol=1e-5)


def test_turning_moves_pixels_and_no_more():
    cohort = Cohort(x=torch.rand(2, 1, 6, 6))
    found = cohort
    for _ in range(4):
        found = turned(found)
    assert torch.equal(found.x, cohort.x)
    assert torch.equal(inverted(cohort).x, -cohort.x)
