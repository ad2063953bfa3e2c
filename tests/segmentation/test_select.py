"""Herding: laws that hold of every set, the best set where it is known, and what it is for, a lower GED of few."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.random import normal, uniform
from cfx.segmentation.metrics import diversity, ged
from cfx.segmentation.metrics.drawings import alike, layers
from cfx.segmentation.result import Segmentations
from cfx.segmentation.select import _energy, _herd, herded, picked, representative
from cfx.segmentation.summary import medoid
from tests.segmentation.metrics.brute import random_masks

CASES = [(None, (5, 5)), (2, (4, 4)), (4, (3, 3, 3))]


def every_set(masks: Tensor, n: int, classes: int | None) -> dict[tuple[int, ...], Tensor]:
    """The squared energy distance to all samples of every set of n of them, from the formula of the metrics."""
    sets = combinations(range(masks.shape[1]), n)
    return {at: ged(masks[:, list(at)], masks, classes) for at in sets}


@pytest.mark.parametrize(("classes", "space"), CASES)
def test_all_are_represented_by_all(classes, space):
    masks = random_masks(5, 6, classes, space, seed=1)
    assert herded(masks, 6, classes).tolist() == [list(range(6))] * 5
    assert torch.equal(representative(masks, 6, classes), masks)


@pytest.mark.parametrize(("classes", "space"), CASES)
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_no_swap_of_one_mask_improves_the_set_and_it_beats_the_first(classes, space, n):
    masks = random_masks(12, 6, classes, space, seed=n)
    every, found = every_set(masks, n, classes), herded(masks, n, classes).tolist()
    for i, at in enumerate(map(tuple, found)):
        mine = float(every[at][i])
        swaps = [float(v[i]) for other, v in every.items() if len(set(other) & set(at)) >= n - 1]
        assert mine <= min(swaps) + 1e-9
        assert mine <= float(every[tuple(range(n))][i]) + 1e-9
        assert at == tuple(sorted(set(at)))
        if n in (1, 5):  # one swap away is everything
            assert mine <= min(float(v[i]) for v in every.values()) + 1e-9


def test_exchange_improves_on_herding_and_never_spoils_it():
    masks = random_masks(40, 20, None, (6, 6), seed=4)
    own = layers(masks, "masks", None)
    d = alike(own, own).distance
    greedy = _herd(d, 5)
    chosen = torch.zeros_like(greedy).scatter(1, herded(masks, 5), True)
    assert bool((_energy(d, chosen) <= _energy(d, greedy) + 1e-12).all())
    assert bool((_energy(d, chosen) < _energy(d, greedy) - 1e-6).any())  # swaps do something
    sets = picked(masks, greedy.nonzero()[:, 1].reshape(40, 5))
    assert torch.allclose(_energy(d, greedy) - d.mean((1, 2)), ged(sets, masks), atol=1e-12)


def test_one_is_the_medoid_and_an_image_knows_nothing_of_the_others():
    masks = random_masks(9, 7, None, (5, 5), seed=2)
    assert torch.equal(herded(masks, 1)[:, 0], medoid(masks))
    for n in (2, 4):
        alone = torch.cat([herded(masks[i : i + 1], n) for i in range(9)])
        assert torch.equal(alone, herded(masks, n))
        assert torch.equal(herded(masks.flip(0), n).flip(0), alone)


def test_equal_masks_are_no_trouble():
    masks = torch.ones(3, 5, 4, 4, dtype=torch.bool)
    assert herded(masks, 2).shape == (3, 2)
    assert herded(torch.zeros(0, 5, 4, 4, dtype=torch.bool), 2).shape == (0, 2)


def discs(radius: Tensor, shift: Tensor, size: int = 32) -> Tensor:
    """Discs of radii `(n, s)` with shifted centres; one of a radius below 1 is empty."""
    at = torch.arange(size) - size / 2
    squared = (at[:, None] - shift[..., None, None]) ** 2 + at**2
    return (squared < radius[..., None, None] ** 2) & (radius[..., None, None] >= 1)


def imperfect(n: int, s: int) -> tuple[Tensor, Tensor]:
    """Samples and four readers: half of the readers have one size, half another, and samples are a little off."""
    row = torch.arange(n)

    def drawn(count: int, stream: int, bias: float) -> Tensor:
        kind = (uniform((count,), seed=1, row=row, stream=stream) < 0.5).float()
        empty = uniform((count,), seed=1, row=row, stream=stream + 1) < 0.2
        radius = 4 + 4 * kind + bias + 0.8 * normal((count,), seed=1, row=row, stream=stream + 2)
        return discs(radius.where(~empty, 0.0), normal((count,), seed=1, row=row, stream=stream + 3))

    return drawn(s, 0, 0.5), drawn(4, 10, 0.0)


def test_four_that_were_chosen_are_nearer_to_the_readers_than_the_first_four():
    pool, readers = imperfect(64, 60)
    plain, chosen = ged(pool[:, :4], readers).mean(), ged(representative(pool, 4), readers).mean()
    assert float(chosen) <= 0.8 * float(plain)  # .31 and .21 here


@pytest.mark.parametrize("n", [0, 7])
def test_more_than_there_are_and_none_are_refused(n):
    with pytest.raises(InputError, match=rf"n: expected 1 .. 6, as many as there are samples .* got {n}"):
        herded(random_masks(2, 6, None, (4, 4), seed=0), n)


def test_class_numbers_need_their_number():
    with pytest.raises(InputError, match="classes: expected the number of classes"):
        representative(random_masks(2, 6, 3, (4, 4), seed=0), 2)


def test_of_a_result_the_chosen_masks_come_back_as_one():
    masks = random_masks(3, 6, 3, (4, 4), seed=2).to(torch.uint8)
    ones = torch.ones(3, dtype=torch.long)
    apart = diversity(masks, 3).float()
    apart[1] = torch.nan
    drawn = Segmentations(
        masks=masks, verdict=0 * ones, row=torch.arange(3), diversity=apart, nfe_encoder=ones,
        nfe_unet_forward=6 * ones, seconds=apart, segmenter="toy", samples=6, seed=0, labels=["background", "a", "b"],
    )  # fmt: skip
    found = representative(drawn, 3)
    assert torch.equal(found.masks, representative(masks, 3, 3))
    assert (found.samples, found.nfe_unet_forward.tolist()) == (3, [6, 6, 6])
    assert found.diversity.isnan().tolist() == [False, True, False]
    assert torch.allclose(found.diversity[0].double(), diversity(found.masks, 3)[0])
    assert representative(drawn, 1).diversity.isnan().all()
