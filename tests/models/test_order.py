"""A permutation of columns is told from a classifier that is merely bad."""

import pytest
import torch

from cfx.core.random import normal
from cfx.models.order import both_orders, exchanged_order


def answers(order, right, n=120, seed=0):
    """Of each class a share decided right, once column c of a class is `order[c]`; the others decided at random."""
    k, y = len(order), torch.arange(n) % len(order)
    u = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    other = (y + 1 + torch.arange(n) // k % max(1, k - 1)) % k
    said = torch.where(u < right, y, other)
    return torch.nn.functional.one_hot(torch.tensor(order)[said], k).float(), y


@pytest.mark.parametrize("order", [[1, 0], [2, 0, 1], [0, 2, 1], [3, 1, 2, 0], [1, 0, 3, 2, 4]])
@pytest.mark.parametrize("right", [0.9, 1.0])
def test_the_order_of_exchanged_columns_is_found(order, right):
    logits, y = answers(order, right)
    assert exchanged_order(logits, y) == tuple(order)
    assert exchanged_order(logits[:, order], y) is None
    unknown = torch.where(torch.arange(len(y)) % 3 == 0, -1, y)
    assert exchanged_order(logits, unknown) == tuple(order)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("n", [16, 64, 256])
def test_a_classifier_that_is_merely_bad_keeps_its_order(k, n):
    y = torch.arange(n) % k
    for seed in range(100):
        chance = normal((k,), seed=seed, row=torch.arange(n), stream=1)
        assert exchanged_order(chance, y) is None
    for column in range(k):
        assert exchanged_order(torch.eye(k)[torch.full((n,), column)], y) is None  # it says one class of all


@pytest.mark.parametrize("right", [0.5, 0.6, 0.7])
def test_random_features_that_lean_the_other_way_keep_their_order(right):
    logits, y = answers([1, 0], right, n=256)
    assert exchanged_order(logits, y) is None


def test_two_classes_that_are_taken_for_one_keep_their_order():
    y = torch.arange(120) % 3
    assert exchanged_order(torch.eye(3)[torch.where(y == 2, 1, y)], y) is None
    assert exchanged_order(torch.eye(3)[torch.where(y == 2, 1, torch.where(y == 1, 2, 0))], y) == (0, 2, 1)


def test_few_images_are_no_evidence():
    logits, y = answers([1, 0], 1.0, n=8)
    assert exchanged_order(logits, y) is None
    assert exchanged_order(logits, y + 2) is None  # labels of something else
    assert exchanged_order(logits, y - 2) is None  # none is known


def test_images_of_one_subject_are_one():
    logits, y = answers([1, 0], 1.0, n=120)
    assert exchanged_order(logits, y, y) is None


def test_both_orders_are_said():
    assert both_orders((1, 0), ["CN", "AD"]) == "the labels count CN, AD, its columns AD, CN"
    assert both_orders((1, 2, 0), []).endswith("its columns class 2, class 0, class 1")
