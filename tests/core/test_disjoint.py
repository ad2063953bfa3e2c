"""Who is in two cohorts is found by subject, whatever names them."""

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.core.disjoint import check_disjoint, people
from cfx.core.errors import InputError


class Fitted:
    ids = ("a", "b")


def test_subjects_are_those_of_a_cohort_a_list_or_a_fitted_thing():
    cohort = Cohort(torch.zeros(2, 1, 4, 4), ids=("scan-1", "scan-2"), covariates={"subject": torch.tensor([7.0, 7.0])})
    assert people(cohort) == ("7.0", "7.0")
    assert people(Fitted()) == people(["a", "b"], 2) == ("a", "b")
    assert people((), 5) == ()


def test_common_subjects_are_named():
    check_disjoint(("c",), [Fitted(), ["d"]])
    with pytest.raises(InputError, match=r"ids: expected other subjects than those of apart_from\[1\], got 1 in both"):
        check_disjoint(("d", "e"), [Fitted(), ["d"]])


def test_who_has_no_name_cannot_be_compared():
    with pytest.raises(InputError, match="ids: expected names"):
        check_disjoint((), [Fitted()])
    with pytest.raises(InputError, match=r"apart_from\[0\]: expected names"):
        check_disjoint(("a",), [()])
    check_disjoint((), [])


def test_bad_names_are_refused():
    with pytest.raises(InputError, match="ids: expected a name a row, 3"):
        people(["a"], 3)
    with pytest.raises(InputError, match="expected a name a row"):
        people("abc")
    with pytest.raises(InputError, match="apart_from: expected a list"):
        check_disjoint(("a",), "abc")
