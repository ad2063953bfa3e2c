"""Regressors answer in the units of their covariate, and `Near` takes them as they are."""

import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.models import load, read_manifest
from cfx.models.judge import Judge, Near
from cfx.training import train
from cfx.training.config import make_objective
from cfx.training.objectives import whole_batches
from tests.training.toys import toy_cohort, toy_config

FAST = {"steps": 60, "optimizer": {"lr": 1e-2, "warmup": 0}}


@pytest.mark.parametrize("space", [(8, 8), (8, 8, 8)])
def test_it_learns_a_covariate_in_its_units(tmp_path, space):
    cohort = toy_cohort(60, space)
    result = train(toy_config(tmp_path, "regressor", **FAST), cohort)
    assert result.figures["level_r2"] > 0.9
    regressor = load(result.checkpoint)
    with torch.no_grad():
        value = regressor(cohort.x)
    assert value.shape == (60, 1)
    assert (value[:, 0] - cohort.covariates["level"]).abs().mean() < 0.3 * cohort.covariates["level"].std()
    facts = read_manifest(result.checkpoint).facts
    assert facts["targets"] == ["level"]
    assert 35 < facts["mean"][0] < 45  # of the training rows, in units of the covariate


def test_near_takes_it(tmp_path):
    cohort = toy_cohort(20)
    regressor = load(train(toy_config(tmp_path, "regressor", steps=1), cohort).checkpoint)
    goal = regressor(cohort.x[:1]).item()
    assert int(Judge(Near(regressor, goal, 1e-3)).logits(cohort.x[:1]).argmax(1)) == 1


def test_the_loss_is_the_squared_error_in_deviations(tmp_path):
    cohort = toy_cohort(12)
    objective = make_objective(toy_config(tmp_path, "regressor", objective=plain(["level"])), cohort)
    network = objective.players()["main"]
    (batch,) = whole_batches(objective.config, network, cohort, 0)
    loss, _ = objective.loss("main", {"main": network}, batch)
    y = cohort.covariates["level"]
    wanted = (y - y.mean()) / y.std(correction=0)
    assert loss.item() == pytest.approx((network(cohort.x)[:, 0] - wanted).square().mean().item(), rel=1e-5)


def test_several_targets_are_columns(tmp_path):
    cohort = toy_cohort(20)
    config = toy_config(tmp_path, "regressor", objective=plain(["site", "level"]), steps=1)
    result = train(config, cohort)
    assert set(result.figures) == {"site_mae", "site_r2", "level_mae", "level_r2"}
    assert load(result.checkpoint)(cohort.x).shape == (20, 2)


def test_covariates_that_do_not_suit_are_refused(tmp_path):
    cohort = toy_cohort(20)
    level = cohort.covariates["level"]
    with pytest.raises(InputError, match=r"among \['level', 'site'\], got \['age'\]"):
        make_objective(toy_config(tmp_path, "regressor", objective=plain(["age"])), cohort)
    for name, column in (("missing", level.clone().index_fill_(0, torch.tensor([3]), torch.nan)), ("vary", 0 * level)):
        with pytest.raises(InputError, match=name):
            make_objective(toy_config(tmp_path, "regressor"), Cohort(x=cohort.x, covariates={"level": column}))


def plain(targets):
    """Regression without augmentation."""
    return {"kind": "regressor", "targets": targets}
