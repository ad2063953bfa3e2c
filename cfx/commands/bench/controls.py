"""Verdicts of the reliance test on simulated scores whose truth is known, with artefacts of the change in every arm.

Score of image i, network k in each arm, in logits (mean |score| of the untouched image 4, so the margin is 0.4):

    untouched        b[k, i] = -4 + 0.5 z[i] + 0.3 z[k, i]
    every other arm  b + a[k, i] + 0.05 z[k, i],    a = artefact (1 + 0.5 z[k] + 0.3 z[i])    interpolating, say
    same             + what the donor is, d[k, j]
    opposite         + what its donor is + extra[k] + f[k, i],    extra = unequal (1 + 0.5 z[k])
    round_trip       + 0.1 of the same donor + extra[k]
    round_trip_same  + 0.1 of the donor of `same`

with d = 0.3 (z[j] + 0.3 z[k, j]) and f = truth (1 + 0.2 z[k]) + 0.1 z[k] + 0.5 z[i] + 0.3 z[k, i].

`truth` is what the confounder does, `artefact` what changing does in all arms alike, `unequal` what it does in those
of the other class alone: a fair control has to tell that from reliance.
"""

from collections import Counter
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from cfx.confounder.intervention import IDENTITY, OPPOSITE, ROUND_TRIP, ROUND_TRIP_SAME, SAME, UNTOUCHED, Scores
from cfx.confounder.plan import Plan
from cfx.confounder.reliance import Outcome, Reliance, decide
from cfx.core.random import normal, uniform
from cfx.runtime.config import Frozen

_FLIPS = 999  # sign flips of each simulated test


class Control(Frozen):
    """A simulated test with artefacts."""

    truth: float = 0.0
    """What the confounder does, logits; the margin is 0.4."""
    artefact: float = 0.0
    """What changing an image does in every arm, logits."""
    unequal: float = 0.0
    """What it does in the arms of the other class besides, logits."""
    networks: int = Field(default=8, ge=2)
    """Networks."""
    images: int = Field(default=100, ge=4)
    """Test images."""
    donors: int = Field(default=50, ge=2)
    """Donors in each of the two pools."""


def verdicts(design: Control, count: int, seed: int) -> dict[str, Any]:
    """Share of every verdict among simulated tests, and of rejections of the effect and of the net effect alone."""
    plan = Plan(confounder="shape", seeds=design.networks, doses=(), flips=_FLIPS)
    found = [decide(drawn(design, i, seed), plan) for i in range(count)]
    said = Counter(r.verdict for r in found)
    shares = {name: said[outcome] / count for name, outcome in _VERDICTS.items()}
    return {"part": "controls", **design.model_dump(), "n": count} | _rejections(found) | shares


_VERDICTS = {
    "relies": Outcome.RELIES,
    "no_reliance": Outcome.NONE,
    "artefact_found": Outcome.ARTEFACT,
    "inconclusive": Outcome.INCONCLUSIVE,
}


def _rejections(found: list[Reliance]) -> dict[str, float]:
    """Share of tests in which the effect, and the net effect, differ from 0."""
    return {
        name: sum(getattr(r, part).p_value < r.plan.alpha for r in found) / len(found)
        for name, part in (("effect_differs", "effect"), ("net_differs", "net"))
    }


def drawn(design: Control, i: int, seed: int) -> Scores:
    """The scores of one simulated test."""
    k, n, d = design.networks, design.images, design.donors

    def z(*shape: int, stream: int) -> Tensor:
        return normal(shape, seed=seed, row=torch.tensor([i]), stream=stream)[0].double()

    lent = (uniform((2, n), seed=seed, row=torch.tensor([i]), stream=0)[0] * d).long() + torch.tensor([[0], [d]])
    base = -4 + 0.5 * z(1, n, stream=1) + 0.3 * z(k, n, stream=2)
    changed = base + design.artefact * (1 + 0.5 * z(k, 1, stream=3) + 0.3 * z(1, n, stream=4))
    extra = design.unequal * (1 + 0.5 * z(k, 1, stream=5))
    donor = 0.3 * (z(1, 2 * d, stream=6) + 0.3 * z(k, 2 * d, stream=7))
    other, own = donor[:, lent[0]], donor[:, lent[1]]
    own_way = 0.1 * z(k, 1, stream=9) + 0.5 * z(1, n, stream=10) + 0.3 * z(k, n, stream=11)
    does = design.truth * (1 + 0.2 * z(k, 1, stream=8)) + own_way
    arms = {
        IDENTITY: changed,
        SAME: changed + own,
        OPPOSITE: changed + other + extra + does,
        ROUND_TRIP: changed + 0.1 * other + extra,
        ROUND_TRIP_SAME: changed + 0.1 * own,
    }
    noise = 0.05 * z(len(arms), k, n, stream=12)
    score = {name: (value + e).T for (name, value), e in zip(arms.items(), noise, strict=True)} | {UNTOUCHED: base.T}
    y = torch.arange(n) % 2
    score = {name: value.float() for name, value in score.items()}
    return Scores(torch.arange(n), y, torch.ones(n, dtype=torch.bool), score, {}, IDENTITY, lent[0], lent[1])
