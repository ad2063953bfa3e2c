"""Tuning: one budget, one rule, other images; what it writes is what the comparison takes and prints."""

import pytest
import torch
from typer.testing import CliRunner

from cfx.cli import app
from cfx.commands.bench import counterfactual as bench
from cfx.commands.bench.contender import Choices
from cfx.commands.bench.counterfactual import CounterfactualBench, run_bench
from cfx.commands.bench.tuning import RULE, TuningBench, choose, run_tuning, scores
from cfx.core.cohort import Cohort
from tests.counterfactual.metrics.hand_made import result_of
from tests.tiny import SIZE, checkpoints

# untrained networks are at chance, and said to be
pytestmark = pytest.mark.filterwarnings("ignore:classifier. expected one that recognises:cfx.core.errors.CfxWarning")

DATA = [{"kind": "brain", "n": 4, "seed": seed, "size": SIZE} for seed in (61, 62)]
METHODS = [
    {"method": "gradient-attack", "configurations": [{}, {"step": 0.1, "steps": 2}]},
    {"method": "minimal", "labels": False, "rows": 2, "settings": {"steps": 2}, "configurations": [{}, {"start": 0.5}]},
    {"method": "latent-shift", "configurations": [{}, {"bound": 0.1}]},  # without an autoencoder
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    found = checkpoints(tmp_path_factory.mktemp("checkpoints"))
    return {k: v for k, v in found.items() if k != "oracle"}


def config_of(trained, out, **more):
    values = {"name": "tiny", "out": str(out), "data": DATA, "batch_size": 4, "budget": 2, "methods": METHODS}
    return TuningBench.model_validate(values | trained | more)


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    config = config_of(trained, tmp_path_factory.mktemp("tuning") / "out")
    return config, run_tuning(config)


def test_every_method_has_the_same_budget(trained, tmp_path):
    with pytest.raises(ValueError, match=r"expected 3 for every method, got .*'minimal-unlabelled': 2"):
        config_of(trained, tmp_path, budget=3)
    with pytest.raises(ValueError, match=r"expected distinct labels, got \['gradient-attack'\] twice"):
        config_of(trained, tmp_path, methods=[METHODS[0], METHODS[0]])


def test_the_rule_is_validity_first_and_then_error():
    def found(validity, error, n=8):
        return {"n": n, "validity": validity, "error_to_truth_ratio": error}

    good, better, lost, failed = found(0.9, 0.8), found(0.95, 0.7), found(0.85, 0.1), {"n": 0, "validity": 0.0}
    assert choose([lost, good, better, failed]) is better
    assert choose([found(1.0, 0.75), better]) is better  # beyond 0.9 only the error counts
    assert choose([failed, lost, found(0.85, 0.2)]) is lost
    assert choose([lost, found(0.86, 5.0)])["validity"] == 0.86
    first = found(1.0, 0.5)
    assert choose([first, found(0.9, 0.5)]) is first
    assert choose([failed, found(0.0, 3.0)])["n"] == 8
    assert "0.9" in RULE


def test_scores_are_those_of_all_rows_together():
    x = torch.zeros(6, 1, 4, 4)
    truth = x + 0.2
    parts = [(result_of(x[:k], x[:k] + size), Cohort(x[:k], x_true=truth[:k])) for k, size in ((2, 0.1), (6, 0.2))]
    found = scores(parts)
    assert found["n"] == 8
    assert found["error_to_truth_ratio"] == pytest.approx(2 * 0.1 / (8 * 0.2))
    assert found["validity"] == pytest.approx(sum(float(r.reached.sum()) for r, _ in parts) / 8)


def test_what_is_chosen_is_kept_with_every_configuration(whole):
    config, choices = whole
    kept = Choices.read(config.folder / "tuning.json")
    assert kept.chosen == choices.chosen
    assert set(kept.chosen) == {"gradient-attack", "minimal-unlabelled", "latent-shift"}
    assert [len(v) for v in kept.tried.values()] == [2, 2, 2]
    assert {found["n"] for found in kept.tried["gradient-attack"]} == {8}
    assert {found["n"] for found in kept.tried["minimal-unlabelled"]} == {4}
    assert [found["settings"] for found in kept.tried["minimal-unlabelled"]] == [
        {"steps": 2},
        {"steps": 2, "start": 0.5},
    ]
    for key, every in kept.tried.items():
        assert kept.chosen[key] == choose(every)
    assert "autoencoder: expected a checkpoint folder" in kept.tried["latent-shift"][0]["error"]
    table = (config.folder / "table.md").read_text()
    assert f"Hash `{kept.hash[:16]}`" in table
    assert RULE in table
    assert table.count("| **") == 3
    assert "seed 61" in table


def test_finished_configurations_are_not_measured_again(whole, monkeypatch):
    config, choices = whole
    monkeypatch.setattr(bench.Bench, "measure", lambda *_: pytest.fail("measured again"))
    assert run_tuning(config).chosen == choices.chosen


def test_the_comparison_takes_and_prints_what_was_chosen(whole, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "draw", lambda *_: b"")
    tuned, _ = whole
    methods = [
        {"method": "gradient-attack"},
        {"method": "gradient-attack", "tuned": True},
        {"method": "minimal", "labels": False, "tuned": True},
    ]
    values = {"name": "b", "out": str(tmp_path), "data": DATA[0] | {"seed": 5}, "depths": ["typical"], "batch_size": 4}
    values |= {"methods": methods, "tuning": str(tuned.folder / "tuning.json")} | trained
    rows = run_bench(CounterfactualBench.model_validate(values))
    found = {row["method"]: row for row in rows}
    assert [found[m]["tuned"] for m in ("gradient-attack", "gradient-attack-tuned")] == [False, True]
    assert found["gradient-attack-tuned"]["start_sigma"] is None
    assert 0 < found["minimal-unlabelled-tuned"]["start_sigma"] < 1
    table = (tmp_path / "table.md").read_text()
    assert f"hash `{Choices.read(tuned.folder / 'tuning.json').hash[:16]}`" in table
    assert "gradient-attack 8, minimal-unlabelled 4" in table
    with pytest.raises(ValueError, match="tuning: expected the file"):
        CounterfactualBench.model_validate(values | {"tuning": None})


def test_the_verb(trained, tmp_path):
    config = config_of(trained, tmp_path / "out", methods=METHODS[:1])
    (tmp_path / "t.yaml").write_text(config.model_dump_json())
    done = CliRunner().invoke(app, ["bench", "tuning", str(tmp_path / "t.yaml"), "--seed", "1"])
    assert done.exit_code == 0, done.output
    assert f"wrote {tmp_path / 'out'}/tuning.json" in done.output
