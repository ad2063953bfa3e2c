"""The autoencoder's loss is the sum of its named terms."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.training.config import make_objective
from cfx.training.objectives import Batch, whole_batch
from tests.training.toys import toy_cohort, toy_config


def test_vae_loss_adds_its_named_terms(tmp_path):
    cohort = toy_cohort(6)
    objective = make_objective(toy_config(tmp_path, "vae", objective={"kind": "vae", "kl_weight": 0.5}), cohort)
    networks = objective.players()
    loss, scores = objective.loss("main", networks, whole_batch(cohort, 0, 0, torch.device("cpu")))
    assert loss.item() == pytest.approx(float(scores["l1"] + 0.5 * scores["kl"] / 64), rel=1e-5)


def test_the_critic_is_heard_from_its_start_on(tmp_path):
    settings = {"kind": "vae", "adversarial_weight": 2.0, "adversarial_start": 3}
    cohort = toy_cohort(6)
    objective = make_objective(toy_config(tmp_path, "vae", objective=settings), cohort)
    networks = objective.players()
    early, late = (Batch(cohort.x, None, torch.arange(6), 0, step, torch.arange(6)) for step in (2, 3))
    before, _ = objective.loss("main", networks, early)
    after, scores = objective.loss("main", networks, late)
    assert (before - after).item() == pytest.approx(2 * float(scores["realism"]), rel=1e-4, abs=1e-6)


def test_sizes_that_the_network_cannot_halve_are_refused_before_the_first_step(tmp_path):
    objective = make_objective(toy_config(tmp_path, "vae"), toy_cohort(6, (9, 8)))
    with pytest.raises(InputError, match=r"data: expected spatial sizes divisible by 2, got \(9, 8\)"):
        objective.players()
