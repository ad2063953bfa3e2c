"""Who shares a fold, and how targets may be permuted."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.groups import Subjects, dealt, numbered, sums


def test_subjects_stay_whole_and_folds_are_stratified_for_every_permutation() -> None:
    groups = torch.arange(60).repeat_interleave(2)[:90] + 7  # 30 subjects twice, 30 once
    y = groups % 4 == 0
    subjects = Subjects.of(y, groups, seed=1)
    assert len(subjects) == 60 - 15
    for target in [subjects.target, *subjects.permuted(20, seed=2)]:
        for repeat in range(3):
            fold = subjects.folds(5, seed=3, repeat=repeat)
            held = torch.stack([target[fold == a].sum() for a in range(5)])
            assert held.max() - held.min() <= 2  # one of each size of subject
            assert torch.stack([(fold == a).sum() for a in range(5)]).float().std() < 4


def test_permutations_keep_what_a_cell_holds() -> None:
    y = torch.arange(40) % 3 == 0
    blocks = torch.arange(40) % 2
    subjects = Subjects.of(y, blocks=blocks)
    drawn = subjects.permuted(200, seed=0)
    for c in subjects.cell.unique():
        of = subjects.cell == c
        assert len(blocks[of].unique()) == 1
        assert bool((drawn[:, of].sum(1) == subjects.target[of].sum()).all())
    assert drawn.unique(dim=0).shape[0] == 200


def test_every_way_to_fill_the_cells_is_equally_likely() -> None:
    subjects = Subjects.of(torch.tensor([1, 0, 0, 1, 0, 0]), seed=5)
    drawn = subjects.permuted(9000, seed=1)
    _, count = drawn.unique(dim=0, return_counts=True)
    assert len(count) == 9  # two cells of one positive and two negatives
    assert float(((count - 1000.0) ** 2 / 1000).sum()) < 26.1  # chi-squared with 8 degrees of freedom, p = 0.001


def test_a_pair_is_one_cell_whose_labels_flip() -> None:
    y, pair = torch.tensor([1, 0] * 12), torch.arange(12).repeat_interleave(2)
    subjects = Subjects.of(y, blocks=pair)
    assert torch.equal(subjects.cell, pair)
    fold = subjects.folds(4, seed=0, repeat=0)
    assert torch.equal(fold[0::2], fold[1::2])
    drawn = subjects.permuted(400, seed=0)
    assert bool((drawn[:, 0::2] + drawn[:, 1::2] == 1).all())
    assert 0.45 < float(drawn[:, 0::2].mean()) < 0.55


def test_a_number_is_permuted_among_subjects_of_one_block_and_size() -> None:
    groups = torch.tensor([0, 0, 1, 1, 2, 3, 4, 5])
    age = torch.tensor([30.0, 30, 40, 40, 50, 60, 70, 80])
    subjects = Subjects.of(age, groups, torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]))
    drawn = subjects.permuted(100, seed=0)
    for pool in ([0, 1], [2, 3], [4, 5]):
        assert bool((drawn[:, pool].sum(1) == subjects.target[pool].sum()).all())
        assert len(drawn[:, pool].unique(dim=0)) == 2


def test_the_mean_of_a_subject() -> None:
    subjects = Subjects.of(torch.tensor([1, 1, 0, 1]), torch.tensor([4, 4, 2, 9]))
    assert subjects.target.tolist() == [0, 1, 1]
    assert subjects.mean(torch.tensor([[1.0, 3.0, 5.0, 7.0]]).double()).tolist() == [[5.0, 2.0, 7.0]]


def test_names_become_numbers_in_their_order() -> None:
    of = numbered(torch.tensor([30, 10, 30, 20]), 4)
    assert of.tolist() == [2, 0, 2, 1]
    assert sums(torch.tensor([[1.0, 2], [3, 4], [5, 6], [7, 8]]), of).tolist() == [[3, 4], [7, 8], [6, 8]]


def test_dealt_groups_stay_whole_in_folds_of_as_many_groups() -> None:
    of = torch.arange(23).repeat_interleave(torch.arange(23) % 4 + 1)
    fold = dealt(of, 5, seed=4)
    per_group = torch.stack([fold[of == g].unique() for g in range(23)])  # one value each, or this does not stack
    assert sorted(per_group.flatten().bincount().tolist()) == [4, 4, 5, 5, 5]
    assert not torch.equal(fold, dealt(of, 5, seed=4, stream=1))


def test_bad_input_is_named() -> None:
    y = torch.arange(12) % 2
    with pytest.raises(InputError, match="target: expected two values"):
        Subjects.of(torch.arange(12) % 3)
    with pytest.raises(InputError, match="target: expected finite"):
        Subjects.of(torch.tensor([1.0, float("nan")]))
    with pytest.raises(InputError, match="target: expected one value a group"):
        Subjects.of(y, torch.zeros(12, dtype=torch.long))
    with pytest.raises(InputError, match="groups: expected shape"):
        Subjects.of(y, torch.arange(3))
    with pytest.raises(InputError, match="blocks: expected one value a group"):
        Subjects.of(y, torch.arange(12) // 4 * 2 + y, torch.arange(12))
    with pytest.raises(InputError, match="target: expected groups of one block"):
        Subjects.of(y, blocks=y)
    with pytest.raises(InputError, match=r"folds: expected 3 \.\. 6"):
        Subjects.of(y).folds(7, seed=0, repeat=0)
    with pytest.raises(InputError, match="target: expected each value in three folds"):
        Subjects.of(torch.arange(12) < 2, blocks=torch.arange(12) // 4).folds(5, seed=0, repeat=0)
