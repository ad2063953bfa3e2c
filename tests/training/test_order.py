"""The endless sequence of shuffled epochs, and what is held out of it."""

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
