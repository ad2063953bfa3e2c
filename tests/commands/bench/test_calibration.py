"""The bench deals rows by subject, shifts them by known weights, and writes a row a method."""

import json

import pytest
import torch

from cfx.commands.bench.calibration import (
    CalibrationBench,
    CalibrationTask,
    Part,
    Trial,
    dealt,
    quantile_model,
    run_calibration,
)
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.runtime.config import check
from tests.conformal.samples import drawn

NAMES = {
    "method", "task", "seed", "accuracy", "nll", "brier", "ece", "ece_bins", "error_to_true_p", "coverage",
    "coverage_band_low", "coverage_band_high", "set_size",
}  # fmt: skip


def task(**more):
    data = {"kind": "brain", "n": 320, "seed": 5, "size": 16, "overlap": 1.0, "label_noise": 0.1}
    train = {
        "name": "t", "data": data | {"n": 96, "seed": 6}, "validation": 0.0,
        "network": {"name": "cnn", "channels": [4]},
        "objective": {"kind": "classifier", "focal": 1.0}, "steps": 8, "batch_size": 16,
    }  # fmt: skip
    return {"name": "overlap", "data": data, "train": train, "number": "severity"} | more


def trial(tilts=(3.0, 2.0), n=3000, sharpness=2.0):
    """A classifier that says too much, of rows whose probabilities are known."""

    def part(seed, n):
        p, y = drawn(n, seed=seed, sharpness=4.0)
        ids = tuple(f"{seed}-{i}" for i in range(n))
        return Part(
            sharpness * p.log(), y, ids, None, p[:, 0].log() + normal((), seed=seed, row=torch.arange(n), stream=7)
        )

    config = check(CalibrationTask, task(covariate_tilt=tilts[0], label_tilt=tilts[1]), "t")
    bench = CalibrationBench(name="b", tasks=(config,), sizes=(5,))
    return Trial(bench, config, 0, part(1, n), part(2, n), part(3, 2 * n))


@pytest.mark.filterwarnings("ignore:held_out")  # a network of few steps may know no more than chance
def test_the_bench_leaves_a_row_a_method(tmp_path):
    config = check(
        CalibrationBench, {"name": "b", "out": str(tmp_path), "seeds": 1, "tasks": [task()], "sizes": [5]}, "c"
    )
    rows = run_calibration(config)
    assert rows == json.loads((tmp_path / "results.json").read_text())
    assert set(NAMES) <= set.intersection(*(set(row) for row in rows))
    methods = {(row["method"], row["shift"]) for row in rows}
    assert {("plain", ""), ("temperature", ""), ("raps", ""), ("cqr", ""), ("weighted-lac", "label")} <= methods
    assert all(row["error_to_true_p"] is not None for row in rows)
    few = next(row for row in rows if row["method"] == "lac-of-5")
    assert (few["set_size"], few["coverage"]) == (2, 1)
    assert "| overlap | temperature |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_a_temperature_mends_and_sets_keep_their_level_but_under_a_shift():
    found = {(row["method"], row["shift"]): row for row in trial().rows()}
    assert found["temperature", ""]["temperature"] == pytest.approx(2, rel=0.1)
    assert found["temperature", ""]["ece"] < 0.5 * found["plain", ""]["ece"]
    assert found["temperature", ""]["accuracy"] == found["plain", ""]["accuracy"]
    for method in ("lac", "aps", "raps", "mondrian-lac", "cqr"):
        assert found[method, ""]["coverage"] == pytest.approx(0.9, abs=0.025)
    plain, weighted = (found[name, "covariate"]["coverage"] for name in ("lac", "weighted-lac"))
    assert plain < 0.88 < weighted < 0.93
    assert found["weighted-lac", "label"]["coverage"] == pytest.approx(0.9, abs=0.03)


def test_a_quantile_of_a_number_is_found():
    part = trial().held_out
    low = quantile_model(part, 0.1)(part.z)
    assert float((part.number <= low).double().mean()) == pytest.approx(0.1, abs=0.01)


def test_subjects_are_dealt_whole():
    x = torch.zeros(120, 1, 8, 8)
    cohort = Cohort(
        x, y=torch.arange(120) % 2, covariates={"subject": torch.arange(120.0) // 2, "severity": torch.zeros(120)}
    )
    config = check(CalibrationTask, task(), "t")
    parts = dealt(config, cohort, _Flat(), 0)
    assert sum(len(part.y) for part in parts) == 120
    people = [set(part.ids) for part in parts]
    assert not people[0] & people[1] | people[0] & people[2] | people[1] & people[2]
    with pytest.raises(InputError, match=r"overlap\.data: expected 20 rows or more"):
        dealt(config, cohort[:30], _Flat(), 0)
    with pytest.raises(InputError, match=r"overlap\.number: expected one of"):
        dealt(config.model_copy(update={"number": "age"}), cohort, _Flat(), 0)


class _Flat(torch.nn.Module):
    """Two logits that say nothing."""

    def forward(self, x):
        return x.flatten(1)[:, :2]


def test_either_training_or_checkpoints():
    with pytest.raises(InputError, match="either train or classifiers"):
        check(CalibrationTask, task(train=None), "t")
    with pytest.raises(InputError, match="expected a sum below 1"):
        check(CalibrationTask, task(temperature_share=0.6, calibration_share=0.5), "t")
