"""Balanced accuracy, the share of a gap and its interval, and a bench that trains every row."""

import json

import pytest
import torch
from torch import nn

from cfx.atlas import read_atlas
from cfx.commands.bench.remedies import Hits, RemediesBench, decisions, recovered, run_remedies
from cfx.core.cohort import Cohort
from cfx.core.crossed import crossed_effect
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.models import read_manifest
from cfx.training.config import check_config


class Bright(nn.Module):
    """Class 1 where the image is bright."""

    def forward(self, x):
        return x.flatten(1).mean(1, keepdim=True)


def test_the_mean_of_the_weighted_hits_is_the_balanced_accuracy():
    y = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    x = torch.full((8, 1, 8, 8), -0.5)
    x[5:7] = 0.5  # one of six healthy and one of two diseased are taken for diseased
    hits = decisions([Bright()], Cohort(x=x, y=y)).balanced()
    assert float(hits.mean()) == pytest.approx((5 / 6 + 1 / 2) / 2)


def test_networks_decide_at_rest_batch_by_batch_and_are_left_as_they_were():
    x, y = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1, torch.arange(20) % 2
    network = nn.Sequential(nn.Dropout(0.9), Bright()).train()
    hits = decisions([network, Bright()], Cohort(x=x, y=y), batch_size=3)
    assert torch.equal(hits.right, ((x.mean((1, 2, 3)) > 0) == (y == 1))[:, None].expand(20, 2))
    assert network.training
    assert network[0].training
    with pytest.raises(InputError, match="cohort: expected images with one class label each"):
        decisions([network], Cohort(x=x))


def draws(mean, k, n, seed):
    """Values of networks (columns of a table of n images) around a mean."""
    z = normal((k, n), seed=seed, row=torch.tensor([0]), stream=0)[0].double()
    return mean + 0.05 * z[:, :1] + 0.3 * z.flip(1)


class TestRecovered:
    def test_the_share_is_the_ratio_of_the_means(self):
        gap = draws(0.3, 6, 400, 1)
        share, low, high = recovered(0.6 * gap + draws(0.0, 6, 400, 2) * 0.1, gap)
        assert share == pytest.approx(0.6, abs=0.05)
        assert low < share < high

    def test_all_or_nothing_of_the_gap_is_known_exactly(self):
        gap = draws(0.3, 6, 400, 1)
        for factor in (0.0, 0.5, 1.0):
            assert recovered(factor * gap, gap) == pytest.approx((factor,) * 3, abs=1e-3)

    def test_a_share_is_in_the_interval_where_the_crossed_test_does_not_reject_it(self):
        gap, gain = draws(0.3, 4, 200, 1), draws(0.2, 4, 200, 3)
        _, low, high = recovered(gain, gap)
        assert crossed_effect(gain - (low - 0.01) * gap).p_value < 0.05
        assert crossed_effect(gain - (high + 0.01) * gap).p_value < 0.05
        assert crossed_effect(gain - (low + high) / 2 * gap).p_value > 0.05

    def test_intervals_cover_the_true_share(self):
        inside = 0
        for seed in range(40):
            _, low, high = recovered(draws(0.15, 5, 60, 2 * seed), draws(0.3, 5, 60, 2 * seed + 1))
            inside += (low is None or low <= 0.5) and (high is None or high >= 0.5)
        assert inside >= 34  # a valid 95 % interval has fewer in one of 300 such experiments

    def test_no_gap_has_no_share(self):
        gap = draws(0.0, 4, 200, 1)
        assert recovered(gap, gap - gap.mean()) == (None, None, None)


def small(out):
    train = {
        "name": "classifier", "steps": 2, "batch_size": 8, "validation": 0.0, "ema": 0.9,
        "data": {"kind": "brain", "n": 48, "size": 32, "confounders": [{"kind": "shape", "q": 0.9}]},
        "network": {"name": "cnn", "channels": [4, 8]}, "objective": {"kind": "classifier"},
    }  # fmt: skip
    remedies = {
        "reweigh": {"kind": "reweigh", "confounder": "planted_shape"},
        "shape-swap": {"kind": "shape-swap"},
    }
    return RemediesBench.model_validate(
        {"name": "toy", "out": str(out), "train": train, "remedies": remedies, "seeds": 2, "n": 12}
    )


def test_the_bench_writes_one_row_a_way_of_training(tmp_path):
    rows = run_remedies(small(tmp_path))
    assert [row["remedy"] for row in rows] == ["plain", "reweigh", "shape-swap", "unconfounded"]
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    assert all(0 <= row["ba_anti"] <= 1 and row["ba_anti_low"] <= row["ba_anti"] for row in rows)
    assert "| shape-swap |" in (tmp_path / "table.md").read_text()
    hits = read_atlas(tmp_path / "plain-anti.zarr", Hits)
    assert hits.right.shape == (12, 2)
    assert rows[0]["ba_anti"] == pytest.approx(float(hits.balanced().mean()))
    names = ("plain-1/seed-0", "reweigh-1/seed-0", "unconfounded-0/seed-0")
    configs = {name: read_manifest(tmp_path / name / "checkpoint").provenance["config"] for name in names}
    assert configs["plain-1/seed-0"]["data"]["start"] == 48  # every network has subjects of its own
    assert configs["plain-1/seed-0"]["objective"]["remedy"] is None
    assert configs["reweigh-1/seed-0"]["objective"]["remedy"]["kind"] == "reweigh"
    assert configs["unconfounded-0/seed-0"]["data"]["confounders"][0]["q"] == 0.5


def test_data_without_one_planted_confounder_are_refused(tmp_path):
    config = small(tmp_path)
    plain = check_config(config.train.dump() | {"data": {"kind": "brain"}})
    with pytest.raises(InputError, match=r"train\.data: expected simulated brains with one planted confounder"):
        run_remedies(config.model_copy(update={"train": plain}))
