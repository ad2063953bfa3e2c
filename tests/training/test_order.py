"""The endless sequence of shuffled epochs, and what is held out of it."""

import pytest
import torch

from cfx.training.order import Classes, rows_at, split


def test_every_epoch_visits_every_row_once_in_its_own_order():
    first, second = (rows_at(torch.arange(7 * e, 7 * e + 7), 7, seed=1).tolist() for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second
    assert rows_at(torch.tensor([9, 3]), 7, seed=1).tolist() == [second[2], first[3]]


def test_a_split_parts_the_rows():
    kept, held = split(20, 5, seed=3)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(20))
    assert len(held) == 5
    assert not torch.equal(held, split(20, 5, seed=4)[1])


def test_classes_are_drawn_from_evenly():
    y = torch.tensor([2, 0, 2, 2, 0, 5])
    classes = Classes.of(y)
    assert classes.count.tolist() == [2, 3, 1]
    u = torch.linspace(0, 0.999, 300)
    for number, label in enumerate((0, 2, 5)):
        drawn = classes.draw(torch.full((300,), number), u)
        assert (y[drawn] == label).all()
        assert len(set(drawn.bincount(minlength=6)[y == label].tolist())) == 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("counts", [[20, 20], [30, 8, 2], [97, 3], [50, 1, 9]])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_every_class_is_held_out_in_its_share(seed, counts, share):
    y = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    kept, held = split(len(y), int(share * len(y)), seed, y)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(y)))
    for k, n in enumerate(counts):
        out = int((y[held] == k).sum())
        assert out == (0 if n == 1 else min(max(out, 1), n - 1))
        assert abs(out - share * n) <= 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("several", [4, 7])
def test_subjects_are_held_out_whole(seed, several):
    subject = torch.arange(120) // several
    y = (subject % 3 == 0).long()
    for labels in (y, None):
        kept, held = split(120, 24, seed, labels, subject)
        assert not set(subject[kept].tolist()) & set(subject[held].tolist())
        assert abs(len(held) - 24) <= several
        assert labels is None or set(y[kept].tolist()) == set(y[held].tolist()) == {0, 1}


def test_a_subject_whose_label_changes_stays_whole():
    subject, y = torch.arange(40) // 2, torch.arange(40) % 2
    kept, held = split(40, 10, 0, y, subject)
    assert not set(subject[kept].tolist()) & set(subject[held].tolist())
    assert len(held) == 10


def test_one_subject_is_not_parted():
    kept, held = split(8, 2, 0, None, torch.zeros(8, dtype=torch.long))
    assert (len(kept), len(held)) == (8, 0)
    assert len(split(8, 0, 0, torch.arange(8) % 2)[1]) == 0
