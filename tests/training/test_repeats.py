"""The same training under several seeds: each is the run of its seed alone, trained once."""

from dataclasses import replace

import pytest
import torch

from cfx.core.errors import CfxError, InputError
from cfx.models import load
from cfx.training import repeats, train
from cfx.training.loop import Trainer
from cfx.training.repeats import train_seeds
from tests.training.toys import toy_cohort, toy_config

QUICK = {"steps": 2, "seed": 5}


def equal(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_each_network_is_the_run_of_its_own_seed(tmp_path):
    found = train_seeds(toy_config(tmp_path / "all", "classifier", **QUICK), 2, toy_cohort())
    assert not equal(*found)
    assert not any(network.training for network in found)
    for k, network in enumerate(found):
        alone = toy_config(tmp_path / f"{k}", "classifier", **QUICK | {"seed": 5 + k})
        assert equal(network, load(train(alone, toy_cohort()).checkpoint))


def test_finished_runs_are_kept_and_only_those_that_lack_are_trained(tmp_path, monkeypatch):
    config = toy_config(tmp_path, "classifier", **QUICK)
    (first,) = train_seeds(config, 1, toy_cohort())
    step, seeds = Trainer._step, []

    def counted(self):
        seeds.append(self.config.seed)
        return step(self)

    monkeypatch.setattr(Trainer, "_step", counted)
    again, other = train_seeds(config, 2, toy_cohort())
    assert seeds == [6, 6]
    assert equal(again, first)
    assert not equal(again, other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["seed-0", "seed-1"]


def test_rows_are_read_once_for_all(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(repeats, "open_cohort", lambda data: read.append(data) or toy_cohort())
    config = toy_config(tmp_path, "classifier", **QUICK, data={"kind": "brain", "n": 8, "size": 16})
    found = train_seeds(config, 2)
    assert read == [config.data]
    assert equal(found[0], train_seeds(toy_config(tmp_path / "b", "classifier", **QUICK), 1, toy_cohort())[0])


def test_an_interrupted_run_is_an_error_and_no_network(tmp_path, monkeypatch):
    def interrupted(config, cohort):
        return replace(train(config, cohort), status="interrupted", step=1, checkpoint=None)

    monkeypatch.setattr(repeats, "train", interrupted)
    with pytest.raises(CfxError, match=r"seed 0: interrupted at step 1 of 2; the same command resumes"):
        train_seeds(toy_config(tmp_path, "classifier", **QUICK), 2, toy_cohort())


def test_no_network_at_all_is_refused(tmp_path):
    with pytest.raises(InputError, match="seeds: expected at least one, got 0"):
        train_seeds(toy_config(tmp_path, "classifier"), 0, toy_cohort())
