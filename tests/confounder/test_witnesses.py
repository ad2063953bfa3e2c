"""The other witnesses of an audit: who counts as one subject."""

import torch

from cfx.confounder.witnesses import _people
from cfx.core.cohort import Cohort


def test_a_subject_whose_class_changed_counts_as_two() -> None:
    x, y = torch.zeros(6, 1, 4, 4), torch.tensor([0, 0, 1, 1, 0, 1])
    people = _people(Cohort(x, y, ids=("a", "a", "b", "b", "c", "c")))
    assert people is not None
    assert people.unique(return_inverse=True)[1].tolist() == [0, 0, 1, 1, 2, 3]
    assert _people(Cohort(x, y)) is None
