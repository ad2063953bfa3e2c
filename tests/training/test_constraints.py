"""What may not be read as disease in healthy images: the attribution by hand, and that training can lower it."""

import pytest
import torch

from cfx.attribution import attribute
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.training.classify import ClassifierConfig, ClassifierObjective
from cfx.training.constraints import ConstraintConfig, positive_attribution
from cfx.training.objectives import NetworkConfig
from tests.attribution.networks import Linear, images

HEALTHY = torch.tensor([0, 1, 0])


@pytest.mark.parametrize("k", [2, 3])
def test_it_is_the_positive_part_of_input_times_gradient_of_healthy_rows(k):
    f, x = Linear(k=k), images(3).requires_grad_(True)
    found = positive_attribution(f(x), x, HEALTHY, 0).detach()
    own = attribute(f, x.detach(), 0, method="input-x-gradient", baseline="black", output="margin").map
    torch.testing.assert_close(found[[0, 2]], (-own).clamp_min(0).flatten(1).sum(1)[[0, 2]], rtol=1e-4, atol=1e-4)
    assert float(found[1]) == 0


def test_one_logit_is_that_of_class_one():
    f, x = Linear(k=1), images(3).requires_grad_(True)
    found = positive_attribution(f(x), x, HEALTHY, 0)
    torch.testing.assert_close(found[0].detach(), ((x[0] + 1) * f.w[0]).clamp_min(0).sum().detach())


def test_parameters_get_its_gradient_and_a_step_lowers_it():
    f, x = Linear(k=2), images(3).requires_grad_(True)
    first = positive_attribution(f(x), x, HEALTHY, 0).sum()
    first.backward()
    first = first.detach()
    assert float(f.w.grad.abs().max()) > 0
    f.w.data -= 0.01 * f.w.grad
    assert float(positive_attribution(f(x), x, HEALTHY, 0).sum().detach()) < float(first)


def test_a_cohort_without_healthy_rows_is_refused():
    config = ClassifierConfig(kind="classifier", constraint=ConstraintConfig(healthy=2))
    cohort = Cohort(images(4, (16, 16)), y=torch.tensor([0, 1, 0, 1]))
    with pytest.raises(InputError, match=r"constraint\.healthy: expected exclusive classes with rows of class 2"):
        ClassifierObjective(config, NetworkConfig(name="cnn"), cohort, 1)
