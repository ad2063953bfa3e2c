"""Overlaps of all pairs: exact, with empty masks, of several classes, fast; and what is refused."""

import time

import numpy as np
import pytest
import torch

from cfx.core.errors import InputError
from cfx.segmentation.metrics import ged, ncc
from cfx.segmentation.metrics.drawings import Drawings, alike, layers
from tests.segmentation.metrics.brute import CASES, dice, iou, random_masks, sets


@pytest.mark.parametrize(("n", "m", "classes", "space"), CASES)
def test_overlaps_are_those_of_sets_of_pixels(n, m, classes, space):
    samples, readers = random_masks(30, n, classes, space, 1), random_masks(30, m, classes, space, 2)
    found = Drawings.of(samples, readers, classes).across
    for i in range(30):
        s, y = sets(samples[i], classes), sets(readers[i], classes)
        for of, value in ((iou, found.iou[i]), (dice, found.dice[i])):
            expected = [[float(of(a, b)) for b in y] for a in s]
            if (classes or 2) == 2:
                assert value.tolist() == expected  # to the last bit
            assert value.tolist() == [pytest.approx(row, abs=1e-15) for row in expected]


def test_empty_masks():
    none, some = torch.zeros(1, 1, 3, 3).bool(), torch.ones(1, 1, 3, 3).bool()
    masks = layers(torch.cat([none, some], 1), "masks", None)
    assert alike(masks, masks).iou.tolist() == alike(masks, masks).dice.tolist() == [[[1, 0], [0, 1]]]


def test_classes_that_neither_has_do_not_count():
    a, b = torch.tensor([[[[1, 1, 0, 0]]]]), torch.tensor([[[[1, 1, 2, 0]]]])
    found = Drawings.of(a, b, 4).across
    assert found.iou.tolist() == found.dice.tolist() == [[[0.5]]]  # 1 of class 1, 0 of class 2; class 3 occurs nowhere


def loop(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All pairs one by one, the plain way."""
    found = np.empty((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            union = np.logical_or(a[i], b[j]).sum()
            found[i, j] = 1.0 if union == 0 else np.logical_and(a[i], b[j]).sum() / union
    return found


def test_a_hundred_by_a_hundred_is_ten_times_a_loop():
    a, b = (random_masks(1, 100, None, (128, 128), seed) for seed in (1, 2))
    ours, plain = [], []
    for _ in range(3):
        start = time.perf_counter()
        found = Drawings.of(a, b).across.iou[0]
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        expected = loop(a[0].numpy(), b[0].numpy())
        plain.append(time.perf_counter() - start)
    assert found.tolist() == expected.tolist()
    assert min(plain) > 10 * min(ours), (plain, ours)


BOOL = torch.zeros(3, 2, 4, 4).bool()


@pytest.mark.parametrize(
    ("samples", "readers", "classes", "message"),
    [
        (BOOL, BOOL[:, :0], None, r"readers: expected masks \(n, readers, \*space\), at least 1 reader an image; got"),
        (BOOL[:, :0], BOOL, None, "samples: expected masks .*at least 1 sample an image"),
        (BOOL, BOOL[:2], None, "readers: expected masks of the 3 images of 4 x 4 voxels .*, got 2 of 4 x 4"),
        (BOOL, BOOL[..., :3], None, "readers: expected masks of the 3 images of 4 x 4 voxels .*, got 3 of 4 x 3"),
        (BOOL[:, 0], BOOL, None, "got 3 of 4 x 4"),
        (BOOL[0, 0], BOOL, None, "samples: expected masks .*got shape \\(4, 4\\)"),
        (BOOL.float(), BOOL, None, "samples: expected boolean masks or class numbers, got torch.float32; threshold"),
        (BOOL.long(), BOOL, None, "classes: expected the number of classes, background included"),
        (BOOL.long(), BOOL.long(), 1, "classes: expected at least 2"),
        (BOOL.long() + 3, BOOL.long(), 3, r"samples: expected class numbers 0 \.\. 2, got 3 \.\. 3"),
        (BOOL.long(), BOOL.long() - 1, 3, r"readers: expected class numbers 0 \.\. 2, got -1 \.\. -1"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(samples, readers, classes, message):
    for metric in (ged, ncc):
        with pytest.raises(InputError, match=message):
            metric(samples, readers, classes)


def test_one_may_be_flags_and_the_other_numbers():
    masks = random_masks(3, 2, None, (4, 4), 1)
    assert torch.equal(ged(masks, masks.to(torch.uint8), 2), ged(masks, masks))
