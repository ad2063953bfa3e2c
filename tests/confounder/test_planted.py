"""do(c) on simulated brains changes the planted factor and nothing else."""

import pytest
import torch

from cfx.confounder.planted import simulated
from cfx.core.errors import InputError
from cfx.data import BrainConfig
from cfx.data.brain import Confounder

KINDS = ("tag", "implant", "ruler", "scanner", "shape")


def config(kind: str, q: float = 0.9) -> BrainConfig:
    return BrainConfig(n=12, seed=3, size=32, confounders=(Confounder(kind=kind, q=q),))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_the_own_state_is_the_image_itself_where_it_has_it(kind) -> None:
    toggle, cohort = simulated(config(kind), kind)
    c = (cohort.covariates[f"planted_{kind}"] > 0).long()
    shown = toggle.show(torch.arange(12))
    own = c == toggle.y
    assert 6 <= int(own.sum()) < 12
    for name, rows in (("same", own), ("opposite", ~own)):
        assert torch.equal(shown.arms[name][rows], cohort.x[rows])
    assert torch.equal(shown.arms["round_trip"], cohort.x)
    changed = (shown.arms["opposite"] - shown.arms["same"]).abs().flatten(1).amax(1)
    assert bool((changed > 0.1).all())


def test_a_tag_changes_its_corner_alone() -> None:
    toggle, _ = simulated(config("tag"), "tag")
    change = (toggle.present - toggle.absent).abs().amax((0, 1))
    corner = torch.zeros(32, 32, dtype=torch.bool)
    corner[:8, :8] = True
    assert float(change[~corner].max()) == 0
    assert float(change[corner].max()) > 0.5


def test_doses_lead_from_the_own_state_to_the_other() -> None:
    toggle, _ = simulated(config("shape"), "shape", doses=(0.5,))
    arms = toggle.show(torch.arange(12)).arms
    whole, half = ((arms[k] - arms["same"]).abs().mean() for k in ("opposite", "dose_0.5"))
    assert 0.3 < float(half / whole) < 0.8


def test_a_factor_that_is_not_planted_is_refused() -> None:
    with pytest.raises(InputError, match="planted ruler"):
        simulated(config("tag"), "ruler")
