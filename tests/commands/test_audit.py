"""Whole audits of tiny networks: the files, their keys, the plan before the verdict, and refusals."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cfx.cli import app
from cfx.commands.audit import AuditConfig, audit_run
from cfx.core.errors import InputError
from cfx.runtime.config import read_as
from cfx.runtime.files import digest
from tests.tiny import checkpoint

SIZE = 32


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("networks")
    return [checkpoint(folder / str(k), "cnn", k) for k in range(6)]


def values(networks: list[str], out: Path, kind: str = "tag", **changes) -> dict:
    data = {"kind": "brain", "n": 24, "seed": 3, "size": SIZE, "confounders": [{"kind": kind, "q": 0.9}]}
    plan = {"confounder": kind, "seeds": len(networks), "doses": [0.5], "flips": 199}
    base = {"name": "audit", "out": str(out), "plan": plan, "data": data, "classifiers": networks, "permutations": 99}
    return base | changes


@pytest.mark.parametrize("kind", ["tag", "shape"])
def test_an_audit_leaves_a_whole_folder(networks: list[str], tmp_path: Path, kind: str) -> None:
    config = AuditConfig.model_validate(values(networks, tmp_path, kind))
    found = audit_run(config)
    summary = json.loads((tmp_path / "summary.json").read_text())
    wanted = {"verdict", "effect", "effect_low", "effect_high", "p_value", "identity_arm", "round_trip_arm", "n"}
    assert wanted | {"plan_sha256", "margin", "probe_volume_ba", "p_holm_reliance"} <= summary.keys()
    assert summary["effect_low"] <= summary["effect"] <= summary["effect_high"]
    assert summary["verdict"] == str(found.reliance.verdict)
    assert (found.exact is not None) == (kind == "shape")
    page = (tmp_path / "report.html").read_text()
    assert found.reliance.sentence.split(":")[0] in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_plan_is_on_disk_under_its_hash_before_a_network_runs(networks: list[str], tmp_path: Path) -> None:
    broken = [*networks[:-1], str(tmp_path / "nowhere")]
    with pytest.raises(Exception, match="nowhere"):
        audit_run(AuditConfig.model_validate(values(broken, tmp_path / "run")))
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan.pop("sha256") == digest(plan)
    assert plan["plan"]["alpha"] == 0.05
    assert not (tmp_path / "run" / "summary.json").exists()


def test_networks_are_trained_where_there_are_none(tmp_path: Path) -> None:
    train = {
        "name": "classifier", "network": {"name": "cnn", "channels": [4, 8]}, "objective": {"kind": "classifier"},
        "batch_size": 8, "steps": 2, "ema": None,
        "data": {"kind": "brain", "n": 16, "seed": 4, "size": SIZE, "confounders": [{"kind": "tag", "q": 0.9}]},
    }  # fmt: skip
    config = values([], tmp_path, classifiers=(), train=train)
    config["plan"]["seeds"] = 2
    found = audit_run(AuditConfig.model_validate(config))
    assert len(found.reliance.by_seed) == 2
    assert (tmp_path / "classifier" / "seed-1" / "checkpoint").is_dir()


def test_the_verb_prints_the_verdict(networks: list[str], tmp_path: Path) -> None:
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(values(networks, tmp_path / "run")))
    done = CliRunner().invoke(app, ["audit", str(tmp_path / "audit.yaml"), "--data.n", "20"])
    assert done.exit_code == 0, done.output
    assert f"wrote {tmp_path}/run/report.html" in done.output


@pytest.mark.parametrize("name", sorted(Path("configs/audit").glob("*.yaml"), key=str), ids=lambda p: p.stem)
def test_committed_audits_are_valid(name: Path) -> None:
    config = read_as(AuditConfig, name)
    assert config.train is not None
    assert config.plan.seeds >= 8
    assert config.train.data != config.data


def test_what_cannot_be_audited_is_refused(networks: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of them"):
        AuditConfig.model_validate(values(networks, tmp_path, classifiers=()))
    with pytest.raises(ValueError, match="number of classifiers"):
        AuditConfig.model_validate(values(networks, tmp_path, classifiers=networks[:2]))
    other = values(networks, tmp_path)
    other["plan"]["confounder"] = "ruler"
    with pytest.raises(InputError, match=r"planted in a simulated cohort, got 'ruler'.*Toggle"):
        audit_run(AuditConfig.model_validate(other))
