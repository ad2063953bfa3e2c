"""Simulated verdicts: right where the truth is clear, with and without artefacts, and at the level they promise."""

import pytest
import torch

from cfx.commands.bench.controls import Control, drawn, verdicts
from cfx.confounder.intervention import NEEDED
from cfx.confounder.plan import Plan
from cfx.confounder.reliance import control_of, decide, effect_of, net_of


def test_scores_are_what_they_are_said_to_be() -> None:
    design = Control(truth=0.6, artefact=0.3, unequal=0.2, networks=40, images=400, donors=200)
    scores = drawn(design, 0, seed=1)
    assert scores.score.keys() == set(NEEDED)
    mean = {name: float(scores.arm(name).mean()) for name in scores.score}
    assert mean["identity"] - mean["untouched"] == pytest.approx(0.3, abs=0.06)
    effect, control, net = (float(f(scores)[0].mean()) for f in (effect_of, control_of, net_of))
    assert effect == pytest.approx(0.8, abs=0.15)
    assert control == pytest.approx(0.2, abs=0.05)
    assert net == pytest.approx(effect - control, abs=1e-5)
    assert decide(scores, Plan(confounder="shape", seeds=40, doses=(), flips=99)).margin == pytest.approx(0.4, abs=0.02)


def test_every_draw_is_another_and_the_same_each_time() -> None:
    one, again, other = (drawn(Control(), i, seed=0).arm("opposite") for i in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("design", "most", "least"),
    [
        ({"artefact": 0.1}, "no_reliance", 0.9),
        ({"artefact": 0.1, "unequal": 0.5}, "artefact_found", 0.8),
        ({"truth": 0.8, "artefact": 0.1}, "relies", 0.9),
        ({"truth": 0.8, "unequal": 0.1}, "relies", 0.9),
    ],
)
def test_what_is_true_is_said_most_often(design: dict[str, float], most: str, least: float) -> None:
    row = verdicts(Control(**design), 40, seed=3)
    assert row[most] >= least
    shares = ("relies", "no_reliance", "artefact_found", "inconclusive")
    assert sum(row[k] for k in shares) == pytest.approx(1)


@pytest.mark.parametrize("unequal", [0.0, 0.2, 0.4])
def test_reliance_is_seldom_said_where_there_is_none(unequal: float) -> None:
    assert verdicts(Control(artefact=0.1, unequal=unequal), 50, seed=4)["relies"] <= 0.1


def test_absence_is_seldom_claimed_of_a_reliance_as_large_as_the_margin() -> None:
    assert verdicts(Control(truth=0.42, artefact=0.1), 50, seed=5)["no_reliance"] <= 0.1
