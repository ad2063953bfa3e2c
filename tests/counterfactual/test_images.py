"""What is asked of each image is read once, whatever it is handed in as, and no image is read before its batch."""

import numpy as np
import pytest
import torch

from cfx.core.cohort import Cohort, Part
from cfx.core.errors import InputError
from cfx.counterfactual.images import Images
from cfx.models.judge import Judge
from tests.counterfactual.toys import Linear, class_means, cohort

TOYS = cohort(class_means((8, 8)), 4).replace(classes=["CN", "AD"])


def test_a_batch_keeps_what_its_cohort_knows():
    toys = TOYS.replace(covariates={"age": torch.arange(4.0)})
    batch = Images.of(toys, None, None, None, None).batch([3, 1], Judge(Linear((8, 8))))
    assert batch.cohort.ids == ("3", "1")
    assert batch.cohort.covariates["age"].tolist() == [3, 1]
    assert torch.equal(batch.x, toys.x[[3, 1]])
    assert batch.target.tolist() == [0, 0]


def test_counters_name_images_that_have_no_names():
    assert Images.of(TOYS.x, None, [7, 3, 5, 9], None, None).source.ids == ("7", "3", "5", "9")
    assert Images.of(TOYS.x.numpy(), None, None, None, None).source.ids == ("0", "1", "2", "3")


@pytest.mark.parametrize("names", [(), ("other", "names")])
def test_names_of_the_cohort_go_before_those_of_the_classifier(names):
    assert Images.of(TOYS, "AD", None, None, None, names).target == 1
    assert Images.of(TOYS.x, "AD", None, None, None, ("AD", "CN")).target == 0


def test_masks_may_be_arrays():
    edit, keep = np.ones((4, 1, 8, 8), bool), torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    edit[:, :, :4] = False
    keep[..., 7] = True
    allowed = Images.of(TOYS, None, None, edit, keep).allowed
    assert torch.equal(allowed, torch.from_numpy(edit) & ~keep)


def test_a_source_has_to_hand_out_cohorts():
    class Bare(Part):
        def __getitem__(self, rows):
            return super().__getitem__(rows).x

    images = Images.of(Bare(TOYS, torch.arange(4)), None, None, None, None)
    with pytest.raises(InputError, match=r"^x: expected a source whose rows are a Cohort, got Tensor"):
        images.batch([0], Judge(Linear((8, 8))))
    assert isinstance(
        Images.of(Part(TOYS, torch.arange(4)), None, None, None, None).batch([0], Judge(Linear((8, 8)))).cohort, Cohort
    )
