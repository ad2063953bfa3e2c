"""The other witnesses of an audit: who counts as one subject."""

import pytest
import torch

from cfx.confounder.witnesses import _column, _people, observational
from cfx.core.cohort import Cohort
from cfx.core.random import normal


def test_a_subject_whose_class_changed_counts_as_two() -> None:
    x, y = torch.zeros(6, 1, 4, 4), torch.tensor([0, 0, 1, 1, 0, 1])
    people = _people(Cohort(x, y, ids=("a", "a", "b", "b", "c", "c")))
    assert people is not None
    assert people.unique(return_inverse=True)[1].tolist() == [0, 0, 1, 1, 2, 3]
    assert _people(Cohort(x, y)) is None


def known(**covariates: torch.Tensor) -> Cohort:
    n = len(next(iter(covariates.values())))
    return Cohort(torch.zeros(n, 1, 4, 4), torch.arange(n) % 2, covariates=covariates)


def test_every_covariate_has_its_observational_test() -> None:
    n = 80
    age, noise = normal((2, n), seed=0, row=torch.arange(1), stream=0)[0]
    gaps = torch.where(torch.arange(n) < 10, torch.nan, age)
    sites = (torch.arange(n) // 2 % 3).double()
    more = {"one": torch.ones(n), "grade": age, "rare": torch.where(torch.arange(n) < 5, age, torch.nan)}
    cohort = known(age=age, gaps=gaps, noise=noise, site=sites, subject=torch.arange(n), **more)
    yhat = age + 2 * (sites == 1)
    found = observational(yhat, cohort, leave_out=["grade"], permutations=199)
    assert list(found) == ["age", "gaps", "noise", "site"]  # nothing to test in the others
    assert {name: t.p_value < 0.05 for name, t in found.items()} == {
        "age": True,
        "gaps": True,
        "noise": False,
        "site": True,
    }
    assert found["gaps"].n == n - 10
    assert all(t.description.startswith("partial") for t in found.values())


@pytest.mark.parametrize("codes", [[0.0, 1.0, 2.0], [10.0, 20.0, 30.0], [1.5, 4.25, 7.0]])
def test_codes_of_the_confounder_are_categories(codes: list[float]) -> None:
    """The middle code is what the predictions follow: a straight line through the codes would see nothing."""
    site = torch.tensor(codes)[torch.arange(60) // 2 % 3]
    column = _column(known(site=site), "site")
    assert column is not None
    assert not column.is_floating_point()
    assert column.unique().tolist() == [0, 1, 2]
    number = _column(known(age=torch.arange(60.0)), "age")
    assert number is not None
    assert number.is_floating_point()
