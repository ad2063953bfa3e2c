"""What all objectives share: batches of a whole cohort, keywords that the data decide, labels that are refused."""

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.training.objectives import NetworkConfig, ObjectiveConfig, check_labels, data_keywords, whole_batches
from tests.training.toys import toy_cohort


class Mask(ObjectiveConfig):
    """An objective that asks for the mask."""

    def target(self, cohort):
        return cohort.mask


def test_batches_of_a_cohort_are_the_cohort_in_order():
    cohort, network = toy_cohort(150), torch.nn.Linear(1, 1)
    batches = list(whole_batches(Mask(kind="mask"), network, cohort, 7))
    assert [len(b.x) for b in batches] == [64, 64, 22]
    assert torch.equal(torch.cat([b.x for b in batches]), cohort.x)
    assert torch.equal(torch.cat([b.y for b in batches]), cohort.mask)
    assert torch.cat([b.slot for b in batches]).tolist() == list(range(150))
    labelled = next(whole_batches(ObjectiveConfig(kind="any"), network, cohort, 7))
    assert torch.equal(labelled.y, cohort.y[:64])


def test_the_data_decide_dimensions_and_channels_unless_told():
    network = NetworkConfig(name="cnn", channels=[4, 8])
    assert data_keywords(network, (3, 8, 8, 8)) == {"spatial_dims": 3, "in_channels": 3, "channels": [4, 8]}
    assert data_keywords(NetworkConfig(name="cnn", in_channels=2), (1, 8, 8))["in_channels"] == 2


def test_labels_that_do_not_suit_are_refused():
    x = torch.zeros(3, 1, 8, 8)
    for y, message in (
        (None, "got none"),
        (torch.zeros(3, 2), "got several"),
        (torch.tensor([0, 1, 2]), r"expected classes 0 \.\. 1, got 0 \.\. 2"),
        (torch.tensor([0, -1, 1]), r"got -1 \.\. 1"),
    ):
        with pytest.raises(InputError, match=message):
            check_labels(Cohort(x=x, y=y), 2)
    check_labels(Cohort(x=x, y=torch.tensor([0, 1, 1])), 2)
