"""Summaries of drawn masks: known answers by hand, and laws between them."""

import math

import pytest
import torch

from cfx.core.errors import InputError
from cfx.segmentation.metrics import diversity
from cfx.segmentation.result import Segmentations
from cfx.segmentation.summary import (
    agreement,
    entropy,
    extremes,
    figures,
    holding,
    interval,
    medoid,
    probability,
    unit_of,
    volumes,
)
from tests.segmentation.metrics.brute import iou, random_masks, sets

CASES = [(None, (5, 4)), (2, (4, 4)), (4, (3, 3, 3))]
FOUR = torch.tensor([[[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 2]]], dtype=torch.uint8)  # one image, four masks (3,)


def test_four_masks_by_hand():
    assert probability(FOUR, 3).tolist() == [[[0.75, 0.5, 0.0], [0.0, 0.0, 0.25]]]
    half, quarter = math.log(2), -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert torch.allclose(entropy(FOUR, 3), torch.tensor([[quarter, half, quarter]]))
    assert volumes(FOUR, 3, voxel=torch.tensor([1.5])).tolist() == [[[0, 0], [1.5, 0], [3, 0], [3, 1.5]]]
    assert extremes(FOUR, 3).tolist() == [[[1, 3]], [[2, 3]]]
    assert holding(FOUR).tolist() == [0.75]
    pairs = [0.5, 0.5 / 2, 1 / 2]  # classes that one of the two has: (1), (1, 2), (1, 2)
    assert float(agreement(FOUR, 3)[0]) == pytest.approx(sum(pairs) / 3)


@pytest.mark.parametrize(("classes", "space"), CASES)
def test_maps_are_those_of_a_loop_over_voxels(classes, space):
    masks = random_masks(4, 7, classes, space, seed=5)
    kinds = range(1, classes or 2)
    p = torch.stack([(masks.long() == k).double().mean(1) for k in kinds], 1)
    assert torch.allclose(probability(masks, classes).double(), p)
    every = torch.cat([1 - p.sum(1, keepdim=True), p], 1)
    expected = torch.where(every > 1e-9, -every * every.clamp_min(1e-12).log(), 0.0).sum(1)
    assert torch.allclose(entropy(masks, classes).double(), expected, atol=1e-6)
    assert bool((entropy(masks[:, :1], classes) == 0).all())


@pytest.mark.parametrize(("classes", "space"), CASES)
def test_volumes_are_the_mass_of_the_probability(classes, space):
    masks = random_masks(6, 5, classes, space, seed=6)
    mass = probability(masks, classes).flatten(2).sum(2).double()
    assert torch.allclose(volumes(masks, classes).mean(1), mass)
    assert torch.allclose(volumes(masks, classes, voxel=0.25), volumes(masks, classes) / 4)


@pytest.mark.parametrize(("classes", "space"), CASES)
def test_agreement_is_that_of_pairs_that_hold_anything(classes, space):
    masks = random_masks(8, 6, classes, space, seed=7)
    for i, found in enumerate(agreement(masks, classes).tolist()):
        held = [m for m in sets(masks[i], classes) if any(m.values())]
        pairs = [float(iou(a, b)) for k, a in enumerate(held) for b in held[:k]]
        assert (sum(pairs) / len(pairs) == pytest.approx(found)) if pairs else math.isnan(found)
    full = (masks != 0).flatten(2)
    full[..., 0] = True  # none is empty
    assert torch.allclose(agreement(full), 1 - diversity(full))


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("s", [1, 2, 16, 20, 50])
def test_an_interval_holds_its_level_and_its_ends_were_drawn(s, level):
    values = torch.rand(9, s, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(s))
    low, high = interval(values, level)
    inside = ((values >= low[:, None]) & (values <= high[:, None])).double().mean(1)
    assert bool((inside >= level - 1e-9).all())
    assert bool((inside < level + 2 / s).all() | (s == 1))  # one less on either side would be too few
    assert bool((values == low[:, None]).any(1).all())
    below, above = (values < low[:, None]).sum(1), (values > high[:, None]).sum(1)
    assert torch.equal(below, above)


def test_an_interval_of_fifty_leaves_two_out_on_either_side():
    values = torch.arange(50.0).flip(0)[None]
    assert interval(values, 0.9).tolist() == [[2], [47]]
    assert interval(values[:, :20], 0.9).tolist() == [[31], [48]]


def test_the_medoid_is_the_nearest_to_all_and_the_extremes_are_drawn_and_hold_something():
    masks = random_masks(20, 6, None, (5, 5), seed=9)
    for i, at in enumerate(medoid(masks).tolist()):
        drawn = sets(masks[i], None)
        far = [sum(1 - iou(a, b) for b in drawn) for a in drawn]
        assert float(far[at]) == pytest.approx(float(min(far)))
    small, large = extremes(masks)[..., 0]
    size, every = volumes(masks)[..., 0], torch.arange(20)
    some = size.amax(1) > 0
    assert torch.equal(size[every, large], size.amax(1))
    assert bool((size[every, small] > 0)[some].all())
    assert torch.equal(extremes(torch.zeros(2, 3, 4, 4, dtype=torch.bool)), torch.zeros(2, 2, 1, dtype=torch.long))


def test_what_does_not_fit_is_refused():
    masks = random_masks(3, 4, 3, (4, 4), seed=1)
    with pytest.raises(InputError, match=r"masks: expected class numbers 0 .. 1, got 0 .. 2"):
        probability(masks, 2)
    with pytest.raises(InputError, match="classes: expected the number of classes"):
        entropy(masks)
    with pytest.raises(InputError, match=r"voxel: expected one volume, or one an image \(3\), got \(2,\)"):
        volumes(masks, 3, voxel=torch.ones(2))
    for level in (0.0, 1.5):
        with pytest.raises(InputError, match="level: expected a share"):
            interval(volumes(masks, 3), level)


def test_figures_are_named_by_class_and_count_masks_that_hold_it():
    ones = torch.ones(1, dtype=torch.long)
    drawn = Segmentations(
        masks=FOUR, verdict=0 * ones, row=0 * ones, diversity=torch.tensor([0.5]), nfe_encoder=ones,
        nfe_unet_forward=ones, seconds=torch.ones(1), segmenter="toy", samples=4, seed=0, labels=["none", "a", "b"],
    )  # fmt: skip
    found = {name: float(value) for name, value in figures(drawn, torch.full((1, 1), 2.0), 0.5).items()}
    assert found == {
        "diversity": 0.5, "agreement": pytest.approx(5 / 12), "empty_share": 0.25,
        "volume_a": pytest.approx((2 + 4 + 4) / 3), "volume_b": 2, "volume_from_a": 2, "volume_from_b": 2,
        "volume_to_a": 4, "volume_to_b": 2, "volume_width_a": 2, "volume_width_b": 0,
    }  # fmt: skip
    one = drawn.replace(labels=["none", "a"], masks=FOUR.clamp(max=1))
    assert {"volume", "volume_width"} <= figures(one, None, 0.9).keys()
    assert bool(figures(one.replace(masks=0 * FOUR), None, 0.9)["volume"].isnan().all())


def test_units_are_those_of_the_spacing():
    assert [unit_of(s, d) for s in (None, torch.ones(1, 2)) for d in (2, 3)] == ["pixels", "voxels", "mm^2", "mm^3"]


def test_an_interval_counts_what_it_is_told_to():
    values, where = torch.tensor([[5.0, 0, 0, 7, 6]]), torch.tensor([[True, False, False, True, True]])
    assert interval(values, 0.9, where).tolist() == [[5], [7]]
    assert bool(interval(values, 0.9, where & False).isnan().all())
