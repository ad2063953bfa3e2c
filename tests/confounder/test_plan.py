"""A plan is complete, frozen, and refuses what a verdict could not rest on."""

import re

import pytest
from pydantic import ValidationError

from cfx.confounder.plan import Plan
from cfx.core.errors import InputError


def test_a_plan_cannot_be_changed_and_has_no_unknown_keys():
    plan = Plan(confounder="shape")
    with pytest.raises(ValidationError, match="frozen"):
        plan.alpha = 0.1
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Plan(confounder="shape", alhpa=0.1)


@pytest.mark.parametrize("doses", [(0.5, 0.25), (0.25, 0.25), (0.0, 0.5), (0.5, 1.0)])
def test_doses_lie_between_none_and_all_in_order(doses):
    with pytest.raises(ValidationError, match=re.escape(f"increasing numbers in (0, 1), got {list(doses)}")):
        Plan(confounder="shape", doses=doses)
    assert Plan(confounder="shape", doses=()).doses == ()


@pytest.mark.parametrize(
    "wrong", [{"alpha": 0.5}, {"alpha": 0}, {"margin": 0}, {"seeds": 0}, {"flips": 98}, {"role": "x"}]
)
def test_levels_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Plan(confounder="shape", **wrong)


def test_another_number_of_networks_than_planned_is_refused():
    Plan(confounder="shape", seeds=3).check_networks(3)
    with pytest.raises(InputError, match=re.escape("plan.seeds: expected the number of networks, 2, got 3")):
        Plan(confounder="shape", seeds=3).check_networks(2)
