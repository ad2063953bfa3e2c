"""`cfx.audit` on networks whose reliance is known: what it returns, and what it refuses."""

import pytest
import torch
from torch import nn

import cfx
from cfx.confounder.audit import Audit
from cfx.confounder.plan import Plan
from cfx.confounder.reliance import Outcome
from cfx.core.cohort import Cohort, part
from cfx.core.errors import InputError
from tests.confounder.linear import dropping, networks, toggle

PLAN = Plan(confounder="pixel", seeds=6, doses=(0.5,), flips=199)


def cohort() -> Cohort:
    change = toggle()
    pixel = (change.untouched[:, 0, -1, -1] > 0).float()
    return Cohort(x=change.untouched, y=change.y, covariates={"pixel": pixel, "age": torch.arange(40.0)})


@pytest.fixture(scope="module")
def found() -> Audit:
    return cfx.audit(networks(2.0, k=6), cohort(), PLAN, intervention=toggle(), exact=toggle(), permutations=99)


def test_the_verdict_and_the_other_witnesses(found: Audit) -> None:
    assert found.reliance.verdict is Outcome.RELIES
    assert found.reliance.effect.value == pytest.approx(1.0, abs=0.1)
    assert found.exact is not None
    assert found.exact.effect == found.reliance.effect
    assert found.witnesses is not None
    assert found.witnesses.ladder is None  # these images have no masks
    assert found.witnesses.partial is not None
    assert set(found.witnesses.adjusted) == {"reliance", "partial"}
    assert {row.name for row in found.witnesses.balance.rows} >= {"pixel", "age"}
    assert found.names == ["0", "2", "1", "3"]  # two of each class
    assert {len(x) for x in found.examples.values()} == {4}
    summary = found.summary()
    assert summary["verdict"] == "relies"
    assert summary["exact_effect"] == summary["effect"]
    assert summary["networks"] == 6


def test_networks_in_training_mode_get_the_same_verdict_and_stay_so(found: Audit) -> None:
    asked = nn.ModuleList([dropping(f) for f in networks(2.0, k=6)])
    again = cfx.audit(asked, part(cohort(), slice(None)), PLAN, intervention=toggle(), permutations=99)
    assert again.reliance.effect == found.reliance.effect
    assert torch.equal(again.sensitivity.map, found.sensitivity.map)
    assert all(f.training and f[0].training for f in asked)


def test_one_network_is_enough() -> None:
    plan = PLAN.model_copy(update={"seeds": 1})
    one = cfx.audit(networks(2.0, k=1)[0], cohort(), plan, intervention=toggle(), permutations=99)
    assert one.scores.networks == 1
    assert one.reliance.verdict is Outcome.RELIES


def test_bad_input_is_named() -> None:
    asked, images = networks(2.0, k=6), cohort()
    with pytest.raises(InputError, match=r"plan\.seeds: expected the number of networks, 1, got 6"):
        cfx.audit(asked[0], images, PLAN, intervention=toggle())
    with pytest.raises(InputError, match=r"intervention: expected one that changes 'pixel' .* got None"):
        cfx.audit(asked, images, PLAN)
    with pytest.raises(InputError, match="donors: expected none beside an intervention"):
        cfx.audit(asked, images, PLAN, intervention=toggle(), donors=images)
    with pytest.raises(InputError, match="cohort: expected images with one class label each, got none"):
        cfx.audit(asked, images.replace(y=None), PLAN, intervention=toggle())
    with pytest.raises(InputError, match="intervention: expected the 39 images of the cohort"):
        cfx.audit(asked, images[1:], PLAN, intervention=toggle())
    with pytest.raises(InputError, match="exact: expected the 40 images of the cohort"):
        cfx.audit(asked, images, PLAN, intervention=toggle(), exact=_flipped())
    with pytest.raises(InputError, match="cohort: expected masks and labels, got no masks"):
        cfx.audit(asked, images, Plan(confounder="shape", seeds=6))


def _flipped():
    change = toggle()
    return type(change)(1 - change.y, change.untouched, change.absent, change.present)


def test_what_would_make_a_wrong_verdict_is_refused_before_a_network_is_measured() -> None:
    asked, images = networks(2.0, k=6), cohort()
    with pytest.raises(InputError, match="classifiers: expected networks trained apart, got one of them several times"):
        cfx.audit([asked[0]] * 6, images, PLAN, intervention=toggle())
    with pytest.raises(InputError, match="intervention: expected the images of the cohort, untouched, got others"):
        cfx.audit(asked, images.replace(x=-images.x), PLAN, intervention=toggle())
    with pytest.raises(InputError, match=r"plan\.doses: expected doses that the intervention shows, .* got \[0\.25\]"):
        cfx.audit(asked, images, PLAN.model_copy(update={"doses": (0.25,)}), intervention=toggle())
    tossed = [lambda x, f=f: f(x) + torch.randn(len(x), 1) for f in asked]
    with pytest.raises(InputError, match=r"classifiers\[0\]: expected the same answer whenever an image is shown"):
        cfx.audit(tossed, images, PLAN, intervention=toggle())
