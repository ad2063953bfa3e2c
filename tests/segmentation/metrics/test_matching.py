"""Matchings of samples and readers: what repeating them and picking the best of many do."""

import torch

from cfx.segmentation.metrics import best_m_iou, hm_iou
from cfx.segmentation.metrics.matching import matched
from tests.segmentation.metrics.brute import random_masks

READERS = random_masks(10, 4, None, (5, 5), seed=3)


def test_the_readers_match_themselves_in_any_order_and_number():
    shuffled = READERS[:, torch.tensor([2, 0, 3, 1])]
    assert hm_iou(shuffled, READERS).tolist() == [1] * 10
    assert hm_iou(shuffled.repeat(1, 3, 1, 1), READERS).tolist() == [1] * 10
    assert best_m_iou(shuffled, READERS).tolist() == [1] * 10


def test_all_samples_count_in_one_and_the_best_few_in_the_other():
    bad = ~READERS[:, :1].expand(-1, 12, -1, -1)
    many = torch.cat([READERS, bad], 1)
    assert best_m_iou(many, READERS).tolist() == [1] * 10
    assert float(hm_iou(many, READERS).mean()) < 0.7


def test_numbers_that_do_not_divide_are_both_repeated():
    iou = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]]], dtype=torch.float64)  # two samples, three readers
    assert matched(iou, tile=True).tolist() == [(2 * 1 + 2 * 1 + 0.5 + 0) / 6]
    assert matched(iou, tile=False).tolist() == [1]
    assert matched(iou.mT.contiguous(), tile=False).tolist() == [1]
