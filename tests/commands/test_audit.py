"""Whole audits of tiny networks: the files, their keys, the plan before the verdict, processes, and refusals."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from cfx.atlas import Atlas, read_atlas, write_atlas
from cfx.cli import app
from cfx.commands.audit import AuditConfig, _written, audit_run
from cfx.confounder.audit import Audit, audit
from cfx.confounder.intervention import Scores
from cfx.confounder.observed.sensitivity import Sensitivity
from cfx.confounder.planted import simulated
from cfx.confounder.reliance import decide
from cfx.core.errors import AtlasError, InputError
from cfx.models import load
from cfx.runtime.config import read_as
from cfx.runtime.files import digest
from cfx.runtime.folder import RunFolder
from tests.ood.detectors import MeanDetector

SIZE, N, SEEDS, BATCH = 32, 24, 6, 8
ARMS = 7  # of a planted object with one dose, one of them the round trip of `same`


def data(kind: str = "tag", **changes) -> dict:
    return {"kind": "brain", "n": N, "seed": 3, "size": SIZE, "confounders": [{"kind": kind, "q": 0.9}]} | changes


def values(out: Path, kind: str = "tag", **changes) -> dict:
    plan = {"confounder": kind, "seeds": SEEDS, "doses": [0.5], "flips": 199}
    base = {"name": "audit", "out": str(out), "plan": plan, "data": data(kind)}
    return base | {"permutations": 99, "batch_size": BATCH} | changes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Audit]:
    """An audit for shape that trains its networks, and its folder."""
    train = {
        "name": "classifier", "network": {"name": "cnn", "channels": [4, 8]}, "objective": {"kind": "classifier"},
        "batch_size": 8, "steps": 2, "ema": None, "data": data("shape", n=16, seed=4),
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("audit")
    return folder, audit_run(AuditConfig.model_validate(values(folder, "shape", train=train)))


@pytest.fixture(scope="module")
def networks(run: tuple[Path, Audit]) -> list[str]:
    """The networks that it trained."""
    found = [str(run[0] / f"classifier/seed-{k}/checkpoint") for k in range(SEEDS)]
    assert all(Path(path).is_dir() for path in found)
    return found


def test_an_audit_leaves_a_whole_folder(run: tuple[Path, Audit]) -> None:
    folder, found = run
    summary = json.loads((folder / "summary.json").read_text())
    wanted = {"verdict", "effect", "effect_low", "effect_high", "p_value", "identity_arm", "round_trip_arm", "n"}
    wanted |= {"plan_sha256", "margin", "probe_volume_ba", "p_holm_reliance", "exact_effect", "exact_verdict"}
    assert wanted <= summary.keys()
    assert summary["effect_low"] <= summary["effect"] <= summary["effect_high"]
    assert summary["verdict"] == str(found.reliance.verdict)
    assert summary["networks"] == len(found.reliance.by_seed) == SEEDS
    page = (folder / "report.html").read_text()
    assert found.reliance.sentence.split(":")[0] in page
    assert "All evidence" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_scores_of_every_image_are_rows_of_an_atlas_that_bear_the_verdict(run: tuple[Path, Audit]) -> None:
    folder, found = run
    scores = read_atlas(folder / "atlas.zarr", Scores)
    assert scores.score["dose_0.5"].shape == (N, SEEDS)
    assert_same(scores, found.scores)
    again = decide(scores, found.reliance.plan)
    assert (again.verdict, again.effect) == (found.reliance.verdict, found.reliance.effect)
    cohort = Atlas(folder / "atlas.zarr").read_cohort()
    assert torch.equal(cohort.y, scores.y)
    assert set(found.names) <= set(cohort.ids)
    assert decide(read_atlas(folder / "atlas-exact.zarr", Scores), found.reliance.plan).effect == found.exact.effect
    assert_same(read_atlas(folder / "sensitivity.zarr", Sensitivity), found.sensitivity)


def test_two_processes_ask_each_network_once_and_find_what_the_function_finds(
    networks: list[str], tmp_path: Path
) -> None:
    config = AuditConfig.model_validate(values(tmp_path / "run", classifiers=networks))
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    runner = [str(Path(__file__).parent / "audit_runner.py"), str(tmp_path / "audit.yaml"), str(tmp_path)]
    done = subprocess.run(
        [*command, *runner], env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]

    toggle, cohort = simulated(config.data, "tag", doses=config.plan.doses)
    alone = audit(
        [load(path) for path in networks], cohort, config.plan, intervention=toggle, permutations=99,
        leave_out=["severity", "severity_true"], batch_size=BATCH,
    )  # fmt: skip
    assert done.stdout.count(alone.reliance.sentence) == 1  # the main process alone speaks
    assert f"wrote {tmp_path}/run/report.html" in done.stdout
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    mine = {key: None if value != value else value for key, value in alone.summary().items()}
    assert summary | {"plan_sha256": mine["plan_sha256"]} == mine
    assert_same(read_atlas(tmp_path / "run/atlas.zarr", Scores), alone.scores)
    assert_same(read_atlas(tmp_path / "run/sensitivity.zarr", Sensitivity), alone.sensitivity)

    shares = [Counter(json.loads((tmp_path / f"asked-{rank}.json").read_text())) for rank in (0, 1)]
    assert all(shares)
    looks = 2 * len(shares)  # at the first image, twice a process: do answers repeat?
    each = {"score": N * ARMS, "gradient": N * 4 + looks}
    assert shares[0] + shares[1] == {f"classifiers[{k}] {how}": n for k in range(SEEDS) for how, n in each.items()}


def assert_same(a: Scores | Sensitivity, b: Scores | Sensitivity) -> None:
    """Two values are equal bit for bit."""
    assert a.parts().keys() == b.parts().keys()
    assert all(torch.equal(part, b.parts()[name]) for name, part in a.parts().items())
    assert a.plain() == b.plain()


def test_the_plan_is_on_disk_under_its_hash_before_a_network_runs(networks: list[str], tmp_path: Path) -> None:
    broken = [*networks[:-1], str(tmp_path / "nowhere")]
    with pytest.raises(Exception, match="nowhere"):
        audit_run(AuditConfig.model_validate(values(tmp_path / "run", classifiers=broken)))
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan.pop("sha256") == digest(plan)
    assert plan["plan"]["alpha"] == 0.05
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("q", [0.9, 0.5])
@pytest.mark.parametrize("kind", ["shape", "tag", "implant", "ruler"])
def test_one_file_and_its_overrides_are_the_audits_of_the_readme(kind: str, q: float) -> None:
    name = f"audit-brain64-{kind}-q{100 * q:g}"
    overrides = {"name": name, "data.confounders.0.q": str(q), "data.confounders.0.kind": kind}
    other = {} if kind == "shape" else {"plan.confounder": kind, "donors": "null"}
    config = read_as(AuditConfig, "configs/audit/brain64.yaml", overrides | other)
    assert config.train is not None
    assert config.plan.seeds >= 8
    assert config.plan.confounder == kind
    cohorts = [config.data, config.train.data, *([config.donors] if kind == "shape" else [])]
    assert [[(c.kind, c.q) for c in part.confounders] for part in cohorts] == [[(kind, q)]] * len(cohorts)
    assert len({(part.seed, part.start) for part in cohorts}) == len(cohorts)  # no subject serves twice
    published = json.loads(Path(f"docs/audit/{name.removeprefix('audit-')}.json").read_text())
    assert (published["n"] + published["excluded"], published["networks"]) == (config.data.n, config.plan.seeds)


def test_what_cannot_be_audited_is_refused(networks: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of them"):
        AuditConfig.model_validate(values(tmp_path))
    with pytest.raises(ValueError, match="number of classifiers"):
        AuditConfig.model_validate(values(tmp_path, classifiers=networks[:2]))
    other = values(tmp_path, classifiers=networks)
    other["plan"]["confounder"] = "ruler"
    with pytest.raises(InputError, match=r"planted in a simulated cohort, got 'ruler'.*Toggle"):
        audit_run(AuditConfig.model_validate(other))


@pytest.mark.parametrize("copied", [False, True], ids=["one path twice", "the same weights under two paths"])
def test_one_checkpoint_counted_twice_is_refused(networks: list[str], tmp_path: Path, copied: bool) -> None:
    again = networks[0]
    if copied:
        again = str(shutil.copytree(again, tmp_path / "again"))
    config = AuditConfig.model_validate(values(tmp_path / "run", classifiers=[*networks[:-1], again]))
    with pytest.raises(InputError, match=rf"classifiers\[0, {SEEDS - 1}\] are equal, with the same weights"):
        audit_run(config)
    assert not (tmp_path / "run" / "summary.json").exists()


def test_no_atlas_of_something_else_is_replaced(run: tuple[Path, Audit], tmp_path: Path) -> None:
    write_atlas(tmp_path / "atlas.zarr", run[1].sensitivity)
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(values(tmp_path, classifiers=[str(tmp_path)] * SEEDS)))
    done = CliRunner().invoke(app, ["audit", str(tmp_path / "audit.yaml")])
    assert done.exit_code == 2
    assert "expected an atlas of Scores, got one of Sensitivity" in done.output
    assert_same(read_atlas(tmp_path / "atlas.zarr"), run[1].sensitivity)
    with pytest.raises(AtlasError):
        read_atlas(tmp_path / "atlas.zarr", Scores)


def test_a_detector_is_audited_in_the_place_of_a_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its score is the mean of the image; a bright tag in a corner raises it, whatever the brain."""
    monkeypatch.setattr("cfx.commands.ood.build_detector", lambda name, **settings: MeanDetector())
    plain = {"kind": "brain", "n": 60, "seed": 9, "size": SIZE}
    detector = {"reference": plain, "detector": "mean"}
    config = values(tmp_path / "out", detector=detector, gate=detector)
    config["plan"]["seeds"] = 1
    audited = AuditConfig.model_validate(config)
    assert audited.detector is not None
    found = audit_run(audited)
    assert found.reliance.scored
    assert found.reliance.effect.value > 0
    assert found.reliance.sentence.startswith("The score relies on tag, a confounder: +")
    kept = json.loads((tmp_path / "out/summary.json").read_text())
    assert kept["unit"] == "standard deviations"
    assert kept["verdict"] == "relies"
    assert 0 <= kept["gate_out_opposite_low"] <= kept["gate_out_opposite"] <= kept["gate_out_opposite_high"] <= 1
    assert not (tmp_path / "out/sensitivity.zarr").exists()
    assert "standard deviations" in (tmp_path / "out/report.html").read_text()
    config["plan"]["seeds"] = 6
    with pytest.raises(ValueError, match=r"plan\.seeds: expected 1, for one detector, got 6"):
        AuditConfig.model_validate(config)


def test_the_digest_of_a_plan_without_a_detector_is_what_it_was(networks: list[str], tmp_path: Path) -> None:
    kept = {}
    for name, more in (("a", {}), ("b", {"gate": {"reference": data(), "detector": "denoising"}})):
        config = AuditConfig.model_validate(values(tmp_path / name, classifiers=networks, **more))
        _written(config, RunFolder(config.folder))
        kept[name] = json.loads((tmp_path / name / "plan.json").read_text())
    assert kept["a"] == kept["b"]
    assert not {"detector", "gate"} & kept["a"].keys()
