"""Remedies against closed forms, and against a confounder that misleads at test time."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.scores import dice
from cfx.data.lazy import LazyCohort
from cfx.models import load
from cfx.training import train
from cfx.training.config import make_objective
from cfx.training.objectives import whole_batch
from cfx.training.order import Classes
from cfx.training.remedies import (
    AdversarialConfig,
    ReweighConfig,
    ShapeSwapConfig,
    Swap,
    balancing,
    groups,
    make_remedy,
)
from tests.training.toys import balls, make_part, toy_cohort, toy_config

HERE = Path(__file__).parent
CPU = torch.device("cpu")
REMEDIES = {
    "reweigh": {"kind": "reweigh", "confounder": "site"},
    "reversal": {"kind": "reversal", "confounder": "site"},
    "adversarial": {"kind": "adversarial", "confounder": "site"},
    "shape-swap": {"kind": "shape-swap"},
}


def objective(kind):
    return {"kind": "classifier", "noise": 0.1, "flip": True, "remedy": REMEDIES[kind]}


def weights(out):
    return load_file(Path(out) / "checkpoint" / "model.safetensors")


def gap(a, b):
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


class TestReweighing:
    def test_weights_are_the_ratio_of_products_to_joint(self):
        y = torch.tensor([0, 0, 0, 0, 1, 1])
        c = torch.tensor([0, 0, 0, 1, 0, 1])
        expected = torch.tensor([4 * 4 / 18, 4 * 4 / 18, 4 * 4 / 18, 4 * 2 / 6, 2 * 4 / 6, 2 * 2 / 6])
        torch.testing.assert_close(balancing(y, c), expected)

    def test_class_and_confounder_are_independent_under_the_weights(self):
        g = torch.Generator().manual_seed(1)
        y = torch.randint(3, (500,), generator=g)
        c = (y + torch.randint(4, (500,), generator=g) * torch.randint(2, (500,), generator=g)) % 4
        w = balancing(y, c)
        assert float(w.mean()) == pytest.approx(1, rel=1e-5)
        joint = torch.zeros(3, 4).index_put_((y, c), w / 500, accumulate=True)
        torch.testing.assert_close(joint, joint.sum(1, keepdim=True) * joint.sum(0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(joint.sum(1), y.bincount() / 500)

    def test_the_loss_is_the_weighted_mean(self, tmp_path):
        cohort = toy_cohort(24)
        remedied, plain = (
            make_objective(toy_config(tmp_path, "classifier", objective=o), cohort)
            for o in ({"kind": "classifier", "remedy": REMEDIES["reweigh"]}, {"kind": "classifier"})
        )
        networks = remedied.players()
        batch = whole_batch(cohort, 0, 0, CPU)
        each = nn.functional.cross_entropy(networks["main"](batch.x), cohort.y, reduction="none")
        w = balancing(cohort.y, cohort.covariates["site"].long())
        torch.testing.assert_close(remedied.loss("main", networks, batch)[0], (w * each).mean())
        torch.testing.assert_close(plain.loss("main", networks, batch)[0], each.mean())

    def test_many_values_are_cut_into_fifths_and_few_are_kept(self):
        assert groups(torch.randn(1000, generator=torch.Generator().manual_seed(2))).bincount().tolist() == [200] * 5
        assert groups(torch.tensor([-1.5, 7.0, -1.5, 2.0])).tolist() == [0, 2, 0, 1]


class TestShapeSwap:
    @pytest.mark.parametrize("space", [(48, 48), (32, 32, 32)])
    def test_an_image_takes_the_shape_of_its_donor(self, space):
        n = 12
        mask = balls(torch.linspace(0.25, 0.38, n) * space[0], space)
        cohort = Cohort(x=2.0 * mask.float() - 1, y=(torch.arange(n) >= 6).long(), mask=mask)
        swap = Swap(mask, Classes.of(cohort.y))
        batch = whole_batch(cohort, 4, 0, CPU)
        donors, x = swap.donors(batch), swap(batch)
        assert (donors != torch.arange(n)).any()
        assert dice(x > 0, mask[donors]).min() > 0.97
        parts = [swap(make_part(batch, rows, 0)) for rows in (slice(0, 5), slice(5, 12))]
        torch.testing.assert_close(torch.cat(parts), x, rtol=0, atol=1e-5)

    def test_donors_tell_nothing_of_the_class(self):
        y = (torch.arange(6000) % 10 < 3).long()  # three in ten: classes are drawn alike all the same
        cohort = Cohort(x=torch.zeros(6000, 1, 8, 8), y=y)
        swap = Swap(balls(torch.full((6000,), 2.0), (8, 8)), Classes.of(y))
        donor = y[swap.donors(whole_batch(cohort, 0, 0, CPU))].double()
        for k in (0, 1):
            assert float(donor[y == k].mean()) == pytest.approx(0.5, abs=0.04)
        drawn = swap.donors(whole_batch(cohort, 0, 0, CPU))
        assert len(drawn.unique()) > 3000


class TestTraining:
    @pytest.mark.parametrize("kind", REMEDIES)
    def test_parts_of_a_batch_are_the_batch(self, tmp_path, kind):
        more = {"steps": 6, "objective": objective(kind)}
        train(toy_config(tmp_path / "1", "classifier", **more), toy_cohort())
        train(toy_config(tmp_path / "4", "classifier", accumulate=4, **more), toy_cohort())
        assert gap(weights(tmp_path / "1"), weights(tmp_path / "4")) < 1e-5

    def test_a_killed_adversarial_run_goes_on_bit_for_bit(self, tmp_path):
        more = {"objective": objective("adversarial"), "save_every": 4, "steps": 8}
        command = [sys.executable, str(HERE / "runner.py"), str(tmp_path / "killed")]
        command += [json.dumps({"kind": "classifier", **more}), "--kill-after", "6"]
        environment = os.environ | {"PYTHONPATH": str(HERE.parent.parent), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
        train(toy_config(tmp_path / "killed", "classifier", **more), toy_cohort())
        train(toy_config(tmp_path / "whole", "classifier", **more), toy_cohort())
        for name in ("adversary.network", "adversary.optimizer", "main.network"):
            killed, whole = (
                load_file(tmp_path / run / f"state/step-8/{name}.safetensors") for run in ("killed", "whole")
            )
            assert gap(killed, whole) == 0

    def test_two_processes_are_one(self, tmp_path):
        more = {"objective": objective("adversarial"), "steps": 6}
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = [
            *launcher,
            str(HERE / "runner.py"),
            str(tmp_path / "two"),
            json.dumps({"kind": "classifier", **more}),
        ]
        environment = os.environ | {"PYTHONPATH": str(HERE.parent.parent), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-2000:]
        train(toy_config(tmp_path / "one", "classifier", **more), toy_cohort())
        assert gap(weights(tmp_path / "one"), weights(tmp_path / "two")) < 1e-4

    def test_the_shipped_classifier_is_the_plain_architecture(self, tmp_path):
        result = train(toy_config(tmp_path, "classifier", steps=2, objective=objective("adversarial")), toy_cohort())
        assert load(result.checkpoint)(toy_cohort().x).shape == (22, 2)


def confounded(n, q, seed):
    """A weak disease signal in one corner; a strong mark, equal to the class with probability q, in another."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    c = torch.where(torch.rand(n, generator=g) < q, y, 1 - y)
    x = 0.35 * torch.randn((n, 1, 8, 8), generator=g)
    x[:, :, :4, :4] += 0.07 * (2 * y - 1).view(-1, 1, 1, 1)
    x[:, :, 4:, 4:] += 0.4 * (2 * c - 1).view(-1, 1, 1, 1)
    return Cohort(x=x.clamp(-1, 1), y=y, covariates={"site": c.float()})


@pytest.fixture(scope="module")
def accuracy(tmp_path_factory):
    """Accuracy where the mark equals the class in one of ten, by remedy."""
    rows, test, found = confounded(2000, 0.9, 1), confounded(1000, 0.1, 2), {}
    run = {"steps": 120, "batch_size": 64, "validation": 0.0, "optimizer": {"lr": 5e-3, "warmup": 10}}
    for name in ("plain", "reweigh", "adversarial"):
        remedied = {"kind": "classifier", "remedy": REMEDIES.get(name)}
        config = toy_config(tmp_path_factory.mktemp(name), "classifier", objective=remedied, **run)
        network = load(train(config, rows).checkpoint).eval()
        found[name] = float((network(test.x).argmax(1) == test.y).double().mean())
    return found


@pytest.mark.parametrize("kind", ["reweigh", "adversarial"])
def test_a_remedy_holds_where_the_confounder_misleads(accuracy, kind):
    assert accuracy["plain"] < 0.5
    assert accuracy[kind] > accuracy["plain"] + 0.1


class TestErrors:
    def remedy(self, config, cohort):
        return make_remedy(config, cohort, 10)

    def test_cohorts_that_do_not_suit_are_refused_by_name(self):
        cohort, y = toy_cohort(), toy_cohort().y
        reweigh, shape = ReweighConfig(kind="reweigh", confounder="site"), ShapeSwapConfig(kind="shape-swap")
        with pytest.raises(InputError, match=r"a covariate of the cohort, \['level', 'site'\]; got 'scanner'"):
            self.remedy(ReweighConfig(kind="reweigh", confounder="scanner"), cohort)
        with pytest.raises(InputError, match=r"rows with every value, got counts \[\[11, 0\], \[0, 11\]"):
            self.remedy(reweigh, Cohort(x=cohort.x, y=y, covariates={"site": y}))
        with pytest.raises(InputError, match="finite values of site, not all the same"):
            self.remedy(reweigh, Cohort(x=cohort.x, y=y, covariates={"site": torch.ones(22)}))
        with pytest.raises(InputError, match="vary within every class"):
            self.remedy(
                AdversarialConfig(kind="adversarial", confounder="site"),
                Cohort(x=cohort.x, y=y, covariates={"site": y}),
            )
        with pytest.raises(InputError, match=r"cohort\.mask: expected brain masks to swap shapes, got none"):
            self.remedy(shape, Cohort(x=cohort.x, y=y))
        with pytest.raises(InputError, match="expected one class label a row, got several"):
            self.remedy(shape, Cohort(x=cohort.x, y=torch.stack([y, 1 - y], 1).float(), mask=cohort.mask))
        with pytest.raises(InputError, match=r"shape-swap: expected a cohort in memory.* data\.lazy: false"):
            self.remedy(shape, LazyCohort(lambda rows: {"x": cohort.x[rows]}, cohort.ids, y))

    def test_settings_that_mean_nothing_are_refused(self, tmp_path):
        for remedy in ({"kind": "reweigh"}, {"kind": "shape-swap", "confounder": "site"}, {"kind": "pray"}):
            with pytest.raises(InputError, match="remedy"):
                toy_config(tmp_path, "classifier", objective={"kind": "classifier", "remedy": remedy})
