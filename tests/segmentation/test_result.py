"""Masks of images are rows: they can be selected and joined, and say what they are."""

import torch

from cfx.segmentation import sample_masks
from cfx.segmentation.result import Drawn, Segmentations
from tests.segmentation.test_sample import Coin, images


def test_rows_are_selected_and_joined():
    found = sample_masks(images(), Coin(), 4)
    again = Segmentations.cat([found[:2], found[2:]])
    assert torch.equal(again.masks, found.masks)
    assert "5 rows" in repr(found)
    assert "5 sampled" in repr(found)


def test_every_verdict_has_a_sentence():
    assert all(code.meaning.endswith(".") for code in Drawn)
