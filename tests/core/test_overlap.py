"""Counts of voxels of all pairs of masks."""

import pytest
import torch

from cfx.core import overlap
from cfx.core.overlap import overlaps, packed
from cfx.core.random import uniform


def masks(n: int, s: int, space: tuple[int, ...], stream: int) -> torch.Tensor:
    return uniform((s, *space), seed=1, row=torch.arange(n), stream=stream) < 0.4


@pytest.mark.parametrize("space", [(1,), (7,), (8, 8), (9, 9), (5, 6, 7), (64, 64)])
@pytest.mark.parametrize("words", [1, 1 << 17])
def test_counts_are_those_of_a_product_of_matrices(space, words, monkeypatch):
    monkeypatch.setattr(overlap, "_WORDS", words)
    a, b = masks(3, 4, space, 0), masks(3, 2, space, 1)
    found = overlaps(a, b)
    u, v = a.flatten(2).long(), b.flatten(2).long()
    assert torch.equal(found.both, torch.einsum("nsv,nrv->nsr", u, v))
    assert torch.equal(found.a, u.sum(2)[:, :, None])
    assert torch.equal(found.b, v.sum(2)[:, None])


def test_a_count_beyond_what_single_precision_holds_is_exact():
    a = torch.ones(1, 1, (1 << 24) + 1, dtype=torch.bool)
    assert int(overlaps(a, a).both) == (1 << 24) + 1


def test_shares_of_the_counts():
    a = torch.tensor([[[1, 1, 1, 0], [0, 0, 0, 0]]]).bool()
    b = torch.tensor([[[0, 1, 1, 1], [0, 0, 0, 0]]]).bool()
    found = overlaps(a, b)
    assert found.iou.tolist() == [[[0.5, 0], [0, 1]]]
    assert found.dice.tolist() == [[[4 / 6, 0], [0, 1]]]
    assert found.any.tolist() == [[[True, True], [True, False]]]


def test_words_hold_64_voxels_and_end_in_zeros():
    found = packed(torch.ones(2, 3, 65, dtype=torch.bool))
    assert found.shape == (2, 2, 3)
    assert [int(w).bit_count() for w in found[:, 0, 0]] == [64, 1]


def test_nothing_has_no_counts():
    assert overlaps(torch.zeros(0, 2, 4, 4).bool(), torch.zeros(0, 3, 4, 4).bool()).both.shape == (0, 2, 3)
