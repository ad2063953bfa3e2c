"""`cfx.audit` on networks whose reliance is known: what it returns, and what it refuses."""

from copy import deepcopy
from inspect import unwrap

import pytest
import torch
from torch import Tensor, nn

import cfx
from cfx.confounder.audit import Audit
from cfx.confounder.plan import Plan
from cfx.confounder.reliance import Outcome
from cfx.core.cohort import Cohort, part
from cfx.core.errors import CfxWarning, InputError
from cfx.models.wrappers import Score
from tests.confounder.linear import Linear, dropping, networks, toggle

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


class Normed(nn.Module):
    """`Linear` behind batch normalisation of known statistics, and a dropout in one of several forms."""

    def __init__(self, cheat: float, kind: str) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(1, affine=False)
        norm.running_mean, norm.running_var = torch.tensor([0.5]), torch.tensor([0.25])
        self.body = nn.Sequential(nn.Sequential(norm)) if kind == "nested" else norm
        self.drop = nn.Dropout(0.5) if kind == "dropout" else nn.Identity()
        self.rate, self.head = 0.5 if kind == "functional" else 0.0, Linear(4.0, cheat)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.dropout(self.drop(self.body(x)), self.rate, self.training))


@pytest.mark.parametrize("kind", ["batch norm", "dropout", "nested", "functional"])
def test_batch_norm_and_dropout_are_measured_in_evaluation_mode_and_restored(kind: str) -> None:
    asked = [Normed(f.cheat, kind) for f in networks(2.0, k=6)]  # type: ignore[arg-type]
    plain = [lambda x, f=f: Linear(4.0, f.head.cheat)((x - 0.5) / (0.25 + 1e-5) ** 0.5) for f in asked]
    for f in asked:
        f.train()
    asked[0].body.eval()  # modes are restored part by part
    modes = [m.training for f in asked for m in f.modules()]
    state = [v.clone() for f in asked for v in f.state_dict().values()]
    found = [cfx.audit(nets, cohort(), PLAN, intervention=toggle(), permutations=99) for nets in (asked, plain)]
    assert found[0].reliance.effect.value == pytest.approx(found[1].reliance.effect.value, abs=1e-4)
    assert found[0].reliance.effect.value == pytest.approx(2.0, abs=0.2)  # of twice the contrast
    torch.testing.assert_close(found[0].sensitivity.map, found[1].sensitivity.map)
    assert [m.training for f in asked for m in f.modules()] == modes
    assert all(
        torch.equal(a, b) for a, b in zip(state, [v for f in asked for v in f.state_dict().values()], strict=True)
    )


@pytest.mark.parametrize(("kind", "message"), [("batch norm", "depends on the images"), ("dropout", "the same answer")])
def test_a_function_round_a_network_in_training_mode_is_refused(kind: str, message: str) -> None:
    asked = [Normed(f.cheat, kind).train() for f in networks(2.0, k=6)]  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        cfx.audit([lambda x, f=f: f(x) for f in asked], cohort(), PLAN, intervention=toggle(), permutations=99)


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


class Trained(nn.Module):
    """`Linear` with its weights as parameters, in the room of a checkpoint; and further columns."""

    def __init__(self, cheat: float, columns: int = 1) -> None:
        super().__init__()
        weight = torch.zeros(columns, 16)
        weight[:, 0], weight[:, -1] = 4.0, cheat
        self.head = nn.Linear(16, columns, bias=False)
        self.head.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


def _trained(k: int = 6, columns: int = 1) -> list[nn.Module]:
    return [Trained(f.cheat, columns) for f in networks(2.0, k=k)]  # type: ignore[arg-type]


def _twice(kind: str) -> list:
    one, five = Trained(2.0), _trained(5)
    match kind:
        case "copies":
            return [deepcopy(one) for _ in range(6)]
        case "the same weights under two paths":
            other = Trained(1.0)
            other.load_state_dict(one.state_dict())
            return [*five[:4], one, other]
        case "one behind two wrappers":
            return [*five[:4], one, nn.Sequential(one)]
        case "one behind two functions":
            return [*five[:4], lambda x: one(x), lambda x: one(x)]
        case _:
            return [*five[:4], Linear(4.0, 2.0), Linear(4.0, 2.0)]


@pytest.mark.parametrize(
    "kind",
    ["copies", "the same weights under two paths", "one behind two wrappers", "one behind two functions", "buffers"],
)
def test_one_network_counted_several_times_is_refused_by_name(kind: str) -> None:
    which = "0, 1, 2, 3, 4, 5" if kind == "copies" else "4, 5"
    with pytest.raises(InputError, match=rf"got one of them several times: classifiers\[{which}\] are equal"):
        cfx.audit(_twice(kind), cohort(), PLAN, intervention=toggle(), permutations=99)


def test_networks_that_share_frozen_weights_are_several() -> None:
    body = Trained(0.0)

    class Headed(nn.Module):
        def __init__(self, cheat: float) -> None:
            super().__init__()
            self.body, self.head = body, lambda x: body(x) + cheat * x.flatten(1)[:, -1:]

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x)

    asked = [Headed(f.cheat) for f in networks(2.0, k=6)]  # type: ignore[arg-type]
    assert cfx.audit(asked, cohort(), PLAN, intervention=toggle(), permutations=99).reliance.verdict is Outcome.RELIES


def test_a_plan_may_be_a_mapping_of_its_keys(found: Audit) -> None:
    plan = {"confounder": "pixel", "seeds": 6, "doses": [0.5], "flips": 199}
    again = cfx.audit(networks(2.0, k=6), cohort(), plan, intervention=toggle(), permutations=99)
    assert again.reliance.effect == found.reliance.effect
    assert again.plan_sha256 == found.plan_sha256


_ODD = {
    "plan with a wrong key": ({"plan": {"confounder": "pixel", "seed_s": 2}}, r"config plan: .*seed_s"),
    "plan a name": ({"plan": "pixel"}, r"plan: expected a cfx.confounder.plan.Plan or .* got 'pixel'"),
    "cohort a tensor": ({"cohort": torch.zeros(4, 1, 4, 4)}, r"cohort: expected labelled images, .* got Tensor"),
    "cohort a pair": ({"cohort": (torch.zeros(4, 1, 4, 4), [0, 1, 0, 1])}, "cohort: expected labelled images, .*tuple"),
    "donors a tensor": (
        {"plan": Plan(confounder="shape", seeds=6), "intervention": None, "donors": torch.zeros(4, 1, 4, 4)},
        "donors: expected labelled images, .* got Tensor",
    ),
    "a path": ({"classifiers": "runs/a"}, r"classifiers\[0\]: expected a network, got the path 'runs/a'"),
    "paths": ({"classifiers": ["runs/a"] * 6}, r"classifiers\[0\]: expected a network, got the path 'runs/a'"),
    "a class": ({"classifiers": [Trained] * 6}, r"classifiers\[0\]: expected a network, got the class Trained"),
    "a state": ({"classifiers": [None] * 6}, r"classifiers\[0\]: expected a network or a function .* got NoneType"),
    "one module": ({"classifiers": Trained(2.0)}, r"plan\.seeds: expected the number of networks, 1, got 6"),
    "14 findings": ({"classifiers": _trained(columns=14)}, r"classifiers\[0\]: expected 2 logits, .* got 14"),
}


@pytest.mark.parametrize("kind", _ODD)
def test_what_is_no_argument_of_an_audit_is_named_in_one_line(kind: str) -> None:
    """Unwrapped: the type checks of the test run would refuse some of these before the library does."""
    odd, message = _ODD[kind]
    given = {"classifiers": networks(2.0, k=6), "cohort": cohort(), "plan": PLAN, "intervention": toggle()} | odd
    with pytest.raises(InputError, match=message) as caught:
        unwrap(cfx.audit)(**given, permutations=99)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", [nn.Sigmoid(), nn.Softmax(1)], ids=["sigmoid", "softmax"])
def test_probabilities_in_place_of_logits_are_warned_of_once(end: nn.Module) -> None:
    class Two(Linear):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return end(logits[:, 1:] if isinstance(end, nn.Sigmoid) else logits)

    asked = [Two(4.0, f.cheat) for f in networks(2.0, k=6)]  # type: ignore[arg-type]
    with pytest.warns(CfxWarning, match="look like probabilities") as caught:
        cfx.audit(asked, cohort(), PLAN, intervention=toggle(), permutations=99)
    assert len(caught) == 1
    assert str(caught[0].message).startswith("classifiers[0]: expected logits")


def test_networks_near_chance_are_judged_by_no_arm() -> None:
    """They follow the confounder and nothing else; whatever that does, there is nothing to be right about."""
    blind: list[nn.Module] = [Linear(0.1, 4 + 0.1 * k) for k in range(6)]
    found = cfx.audit(blind, cohort(), PLAN, intervention=toggle(), exact=toggle(), permutations=99)
    assert found.exact is not None
    assert (found.reliance.verdict, found.exact.verdict) == (Outcome.UNJUDGED, Outcome.UNJUDGED)
    assert not found.reliance.fault
    summary = found.summary()
    assert (summary["judged"], summary["verdict"], summary["exact_verdict"]) == (False, "not judged", "not judged")
    assert summary["why"].startswith("Not judged, no competence: balanced accuracy")
    anyway = PLAN.model_copy(update={"judge_anyway": True})
    told = cfx.audit(blind, cohort(), anyway, intervention=toggle(), exact=toggle(), permutations=99)
    assert told.reliance.verdict is Outcome.RELIES


def test_a_gate_says_of_every_arm_how_much_of_it_is_out_of_distribution(found: Audit) -> None:
    """To this gate images whose last pixel is above .2 are out: `opposite` of class 0 and `same` of class 1."""

    def gate(x: Tensor) -> Tensor:
        return (x[:, 0, -1, -1] < 0.2).float().clamp(min=0.04)

    again = cfx.audit(networks(2.0, k=6), cohort(), PLAN, intervention=toggle(), gate=gate, permutations=99)
    for name in ("same", "opposite"):
        assert again.reliance.out[name].value == 0.5
        assert again.reliance.out[name].low == pytest.approx(0.352, abs=1e-3)  # Wilson's of 20 of 40
    p = gate(toggle().untouched).double()
    assert torch.equal(again.scores.gate_p["untouched"], p)
    assert again.reliance.out["untouched"].value == float((p <= 0.05).double().mean())
    summary = again.summary()
    assert summary["gate_out_opposite"] == 0.5
    assert {k: v for k, v in summary.items() if not k.startswith("gate_out")}.keys() == {
        k for k in found.summary() if not k.startswith("exact")
    }
    assert again.reliance.effect == found.reliance.effect
    assert (found.scores.gate_p, found.reliance.out) == ({}, {})
    with pytest.raises(InputError, match="gate: expected a function"):
        cfx.audit(networks(2.0, k=6), cohort(), PLAN, intervention=toggle(), gate=Linear)


class Corner(nn.Module):
    """A score of images that reads one pixel, and has no gradient."""

    def __init__(self, place: tuple[int, int], weight: float = 1.0) -> None:
        super().__init__()
        self.place, self.weight = place, weight

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x[:, 0, *self.place].detach()


def test_a_score_is_audited_for_what_it_relies_on() -> None:
    """In units of .25 the confounder, .5 apart, moves the score that reads it by two, whatever the class."""
    plan = PLAN.model_copy(update={"seeds": 1})
    score = Score(Corner((-1, -1)), 0.0, 0.25)
    found = cfx.audit(score, cohort(), plan, intervention=toggle(), exact=toggle(), permutations=99)
    r = found.reliance
    assert r.verdict is Outcome.RELIES
    assert r.effect.value == pytest.approx(2.0, abs=1e-5)
    assert r.sentence.startswith("The score relies on pixel, a confounder: +2.00 standard deviations")
    assert found.sensitivity is None
    assert found.witnesses is not None
    assert found.witnesses.clusters is None
    assert found.witnesses.partial is not None
    summary = found.summary()
    assert summary["unit"] == "standard deviations"
    assert summary["judged"]
    assert not {"competence", "clusters"} & summary.keys()
    other = cfx.audit(Score(Corner((0, 0)), 0.0, 0.25), cohort(), plan, intervention=toggle(), permutations=99)
    assert other.reliance.verdict is Outcome.NONE
    assert other.reliance.effect.value == 0


def test_several_scores_are_a_sample_and_classifiers_do_not_mix_with_them() -> None:
    scores = [Score(Corner((-1, -1), 1 + 0.05 * k), 0.0, 0.25) for k in range(6)]
    found = cfx.audit(scores, cohort(), PLAN, intervention=toggle(), permutations=99)
    assert found.reliance.verdict is Outcome.RELIES
    assert found.reliance.by_seed.tolist() == pytest.approx([2 + 0.1 * k for k in range(6)], abs=1e-5)
    with pytest.raises(InputError, match="some of each"):
        cfx.audit([*scores[:5], Linear(1.0, 0.0)], cohort(), PLAN, intervention=toggle(), permutations=99)
