"""The reliance test on networks whose answers are known in closed form."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from cfx.confounder.intervention import Scores, Shown, measure
from cfx.confounder.plan import Plan
from cfx.confounder.planted import Toggle
from cfx.confounder.reliance import Outcome, Reliance, decide
from cfx.core.errors import InputError
from tests.confounder.linear import Linear, N, networks, toggle


def judged(cheat: float, *, back: float = 0.0, spread: float = 0.1, k: int = 8, role: str = "confounder") -> Reliance:
    plan = Plan(confounder="pixel", seeds=k, role=role, doses=(0.5,))  # type: ignore[arg-type]
    return decide(measure(networks(cheat, spread, k), toggle(back)), plan)


def test_the_effect_is_the_known_one() -> None:
    found = judged(2.0, spread=0.0)
    assert found.effect.value == pytest.approx(2.0 * 0.5, abs=1e-5)  # cheat times the change of the pixel
    assert found.by_seed.tolist() == pytest.approx([1.0] * 8, abs=1e-5)
    assert found.slope.value == pytest.approx(1.0, abs=1e-5)
    assert {t: round(e.value, 4) for t, e in found.doses.items()} == {0.5: 0.5, 1.0: 1.0}


def test_reliance_is_found_and_its_absence_claimed() -> None:
    relies, none = judged(2.0), judged(0.0, spread=0.05)
    assert relies.verdict is Outcome.RELIES
    assert relies.fault
    assert relies.effect.p_value < 1e-6
    assert none.verdict is Outcome.NONE
    assert none.p_equivalence < 0.05
    assert not none.fault


def test_subjects_are_the_sample_where_they_have_several_images() -> None:
    plan = Plan(confounder="pixel", seeds=8, doses=(0.5,))
    scores = measure(networks(2.0, 0.1), toggle())
    plain, alone = decide(scores, plan), decide(scores, plan, groups=torch.arange(N))
    assert alone.summary() == plain.summary()
    rows = torch.arange(N).repeat_interleave(3)
    tripled = decide(scores[rows], plan, groups=rows)
    for name in ("effect", "slope"):
        one, other = getattr(tripled, name), getattr(plain, name)
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-5)
    assert tripled.p_sign_flip == pytest.approx(plain.p_sign_flip)


def test_a_classifier_against_the_confounder_has_the_other_sign() -> None:
    found = judged(-2.0)
    assert found.verdict is Outcome.RELIES
    assert found.effect.value < 0


def test_two_networks_that_disagree_settle_nothing() -> None:
    assert judged(0.3, spread=3.0, k=3).verdict is Outcome.INCONCLUSIVE


def test_one_network_is_judged_by_itself() -> None:
    found = judged(2.0, k=1)
    assert found.verdict is Outcome.RELIES
    assert "one network" in found.sentence


def told(*, truth: float = 0.0, control: float = 0.0, machine: float = 0.0, doubt: float = 0.0, size: float = 2.0):
    """Scores of 8 networks on 80 images: margin 0.1 size, all arms but `untouched` moved by `machine`, and the arms of
    the other class by `control` besides, `doubt` the spread of that over networks."""
    k, n = 8, 80
    g = torch.Generator().manual_seed(0)
    y, noise = torch.arange(n) % 2, 0.02 * torch.randn(6, n, k, generator=g)
    moved = control + doubt * torch.linspace(-1, 1, k)
    own = -size * torch.ones(n, k)
    score = {"untouched": own, "identity": own + noise[0] + machine, "same": own + noise[1] + machine}
    score |= {"opposite": own + noise[2] + machine + moved + truth, "round_trip": own + noise[3] + machine + moved}
    score |= {"round_trip_same": own + noise[4] + machine}
    return Scores(torch.arange(n), y, torch.ones(n, dtype=torch.bool), score, {}, "identity")


@pytest.mark.parametrize(
    ("how", "verdict"),
    [
        ({"truth": 0.5, "control": 0.07}, Outcome.RELIES),  # a seventh of the effect, but shown to be within the margin
        ({"truth": 0.5, "machine": 0.1}, Outcome.RELIES),  # all arms alike
        ({"truth": 0.5, "control": -0.1}, Outcome.RELIES),
        ({"truth": 0.5, "control": 0.25}, Outcome.ARTEFACT),  # beyond the margin
        ({"truth": 0.5, "machine": 0.25}, Outcome.ARTEFACT),  # the machinery alone, in all arms
        ({"truth": 0.0, "control": 0.6}, Outcome.ARTEFACT),  # the whole effect
        ({"truth": 0.0, "machine": 0.1}, Outcome.NONE),
        ({"truth": 0.0, "machine": -0.3}, Outcome.ARTEFACT),
        ({"truth": 0.3, "control": -0.3}, Outcome.ARTEFACT),  # a reliance that changing hides
        ({"truth": 0.5, "doubt": 0.7}, Outcome.INCONCLUSIVE),  # the control is too uncertain for either
    ],
)
def test_controls_are_judged_by_their_interval_against_the_margin(how, verdict) -> None:
    found = decide(told(**how), Plan(confounder="shape", doses=()))
    assert found.margin == pytest.approx(0.2)
    assert found.verdict is verdict
    assert found.net.value == pytest.approx(how["truth"], abs=0.01)
    assert found.control.value == pytest.approx(how.get("control", 0), abs=0.01)


def test_an_effect_that_its_control_explains_is_an_artefact_though_that_is_within_the_margin() -> None:
    """Images differ: the effect is not shown to be within the margin; but it is not beyond its control either."""
    scores = told(control=0.15)
    spread = 0.3 * torch.randn(80, 1, generator=torch.Generator().manual_seed(5))
    wide = scores.score["opposite"] + spread - spread.mean()
    found = decide(replace(scores, score={**scores.score, "opposite": wide}), Plan(confounder="shape", doses=()))
    assert found.effect.p_value < 0.05 < found.effect.p_equivalence(found.margin)
    assert found.control.p_equivalence(found.margin) < 0.05
    assert found.net.p_value > 0.05
    assert found.verdict is Outcome.ARTEFACT


def test_scores_without_a_control_are_refused() -> None:
    scores = told()
    short = {k: v for k, v in scores.score.items() if k != "round_trip_same"}
    with pytest.raises(InputError, match=r"scores: .*got none called \['round_trip_same'\]"):
        decide(replace(scores, score=short), Plan(confounder="shape", doses=()))


@pytest.mark.parametrize("right", [0.3, 0.5, 0.58, 0.6, 0.75, 0.9])
@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_networks_near_chance_are_not_judged(right: float, truth: float) -> None:
    """Whatever the intervention does; 0.6 of 80 images is not shown to be better than chance."""
    scores = told(truth=truth)
    wrong = torch.arange(80) // 2 >= round(40 * right)
    turned = {k: torch.where(wrong[:, None], -v, v) for k, v in scores.score.items()}
    found = decide(replace(scores, score=turned), Plan(confounder="shape", doses=()))
    assert found.competence.accuracy.value == pytest.approx(right, abs=0.02)
    assert (found.verdict is Outcome.UNJUDGED) == (right < 0.65)
    assert found.fault == (right > 0.65 and truth > 0)
    if found.verdict is Outcome.UNJUDGED:
        assert f"balanced accuracy {found.competence.accuracy.value:.2f} [" in found.sentence
        assert "no competence" in found.sentence
        assert (found.summary()["judged"], found.summary()["why"]) == (False, found.sentence)
    anyway = decide(replace(scores, score=turned), Plan(confounder="shape", doses=(), judge_anyway=True))
    assert anyway.verdict is not Outcome.UNJUDGED
    assert anyway.summary()["judged"]
    assert "why" not in anyway.summary()


def test_a_mediator_is_never_called_a_fault() -> None:
    found = judged(2.0, role="mediator")
    assert found.verdict is Outcome.RELIES
    assert not found.fault
    assert "no fault" in found.sentence


def test_accuracy_falls_by_what_the_confounder_holds_up() -> None:
    found = judged(12.0)
    assert found.accuracy["same"] == 1.0
    assert found.accuracy["opposite"] < 0.3
    assert found.explained > 1
    assert found.p_mcnemar < 1e-6
    assert found.flipped >= 0.8


def test_batch_size_does_not_matter() -> None:
    one, all_ = (measure(networks(1.0), toggle(), batch_size=b) for b in (1, N))
    assert all(torch.allclose(one.score[k], all_.score[k], atol=1e-6) for k in one.score)


def test_rows_that_failed_are_left_out_and_counted() -> None:
    class Failing(Toggle):
        def show(self, rows: Tensor) -> Shown:
            shown = super().show(rows)
            return Shown(shown.arms, rows >= 4, {"dice": rows.float()})

    failing = Failing(**vars(toggle()))
    found = decide(measure(networks(2.0), failing), Plan(confounder="pixel", doses=()))
    assert (found.n, found.excluded) == (N - 4, 4)
    assert found.quality["dice"] == pytest.approx((4 + N - 1) / 2)


def test_one_logit_and_two_logits_agree() -> None:
    class OneLogit(nn.Module):
        def __init__(self, two: nn.Module) -> None:
            super().__init__()
            self.two = two

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.two(x)
            return out[:, 1:]

    two = networks(1.0)
    a, b = measure(two, toggle()), measure([OneLogit(f) for f in two], toggle())
    assert all(torch.allclose(a.score[k], b.score[k], atol=1e-4) for k in a.score)


def test_doses_of_a_plan_increase() -> None:
    with pytest.raises(ValueError, match="doses"):
        Plan(confounder="tag", doses=(0.5, 0.25))


def test_bad_input_is_named() -> None:
    t = toggle()
    with pytest.raises(InputError, match="classifiers: expected at least one"):
        measure([], t)
    with pytest.raises(InputError, match=r"classifiers\[0\]: expected finite logits, got NaN"):
        measure([Linear(float("nan"), 0.0)], t)
    with pytest.raises(InputError, match="y: expected both classes"):
        Toggle(torch.zeros(N, dtype=torch.long), t.untouched, t.absent, t.present)
    with pytest.raises(InputError, match=r"plan.doses: .* got \[0.25\]"):
        decide(measure(networks(1.0), t), Plan(confounder="pixel", doses=(0.25, 0.5)))
    with pytest.raises(InputError, match=r"plan\.seeds: expected the number of networks, 3, got 8"):
        decide(measure(networks(1.0, k=3), t), Plan(confounder="pixel", seeds=8, doses=()))
    with pytest.raises(InputError, match="present: expected values in"):
        Toggle(t.y, t.untouched, t.absent, t.present + 2)
