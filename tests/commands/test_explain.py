"""A whole run on tiny untrained networks: what it leaves behind, and that an interrupted one goes on."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml

from cfx.atlas import Atlas, read_atlas
from cfx.commands.explain import ExplainConfig, explain_run, lines
from cfx.core.errors import AtlasError, CfxError, CfxWarning, InputError
from cfx.runtime.config import read_as
from cfx.runtime.lock import alone
from tests.tiny import SIZE, checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return checkpoints(tmp_path_factory.mktemp("checkpoints"))


def config_of(trained: dict[str, str], out: Path, **more: object) -> ExplainConfig:
    data = {"kind": "brain", "n": 6, "seed": 5, "size": SIZE}
    return ExplainConfig.model_validate(
        {"name": "tiny", "out": str(out), "data": data, "batch_size": 4} | trained | more
    )


def warns(*_: object) -> None:
    """In place of the perceptual distance: there is none, and a word about it."""
    warnings.warn("no <distance> here", CfxWarning, stacklevel=2)


def test_a_run_leaves_everything_behind(
    trained: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(trained, tmp_path / "run", depths=["typical", "boundary"])
    monkeypatch.setattr("cfx.commands.explain._distance", warns)
    with pytest.warns(CfxWarning, match="no <distance> here"):
        summary = explain_run(config, "cfx explain tiny.yaml")
    kept = json.loads((tmp_path / "run/summary.json").read_text())
    for key in ("validity", "oracle_validity", "l1", "nfe_unet_forward", "nfe_unet_backward", "seconds_per_image"):
        assert kept[key] == pytest.approx(summary[key])
    for key in ("error_to_truth", "error_to_truth_no_edit", "null_edit_error", "boundary_validity"):
        assert kept[key] == pytest.approx(summary[key])
    assert kept["null_edit_error"] <= 1e-5
    assert kept["outside_mask_error"] == 0
    page = (tmp_path / "run/report.html").read_text()
    assert "brain-5-3" in page
    assert "<li>no &lt;distance&gt; here</li>" in page
    assert "cfx explain tiny.yaml" in page
    attributes = Atlas(tmp_path / "run/atlas.zarr").attributes
    assert attributes["warnings"] == ["no <distance> here"]
    assert attributes["made"]["versions"]["torch"] == torch.__version__
    assert Atlas(tmp_path / "run/atlas.zarr").read().row.tolist() == list(range(6))
    assert read_as(ExplainConfig, tmp_path / "run/config.yaml") == config
    assert any(line.startswith("valid ") for line in lines(summary))
    assert any(line.startswith("valid, boundary") for line in lines(summary))


def test_an_interrupted_run_goes_on(trained: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole"
    explain_run(config_of(trained, whole))
    write, calls = Atlas.write, []

    def fails_once(self: Atlas, result: object, cohort: object = None) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise AtlasError("no space left")
        write(self, result, cohort)

    monkeypatch.setattr(Atlas, "write", fails_once)
    with pytest.raises(AtlasError, match="no space"):
        explain_run(config_of(trained, tmp_path / "run"))
    assert len(Atlas(tmp_path / "run/atlas.zarr").missing()) == 2  # the first batch of four is kept
    explain_run(config_of(trained, tmp_path / "run"))
    assert len(calls) == 4  # the second batch, and the metrics of all
    a, b = Atlas(tmp_path / "run/atlas.zarr").read(), Atlas(whole / "atlas.zarr").read()
    assert torch.allclose(a.x_cf, b.x_cf, atol=1e-5)
    assert torch.equal(a.verdict, b.verdict)


# of networks that are 2 steps old
@pytest.mark.filterwarnings("ignore:(classifier|oracle). expected one that recognises:cfx.core.errors.CfxWarning")
def test_two_processes_make_the_same_atlas(trained: dict[str, str], tmp_path: Path) -> None:
    one = config_of(trained, tmp_path / "one", data={"kind": "brain", "n": 20, "seed": 5, "size": SIZE})
    explain_run(one)
    two = one.model_copy(update={"out": str(tmp_path / "two")})
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(two.model_dump(mode="json")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", "cfx", "explain", str(tmp_path / "two.yaml")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("valid to the oracle") == 1  # the main process alone speaks
    for name in ("atlas.zarr", "metrics.zarr"):
        a, b = (read_atlas(tmp_path / folder / name).parts() for folder in ("one", "two"))
        assert a.keys() == b.keys()
        for column in a.keys() - {"seconds", "values.seconds_per_image"}:
            assert a[column].numpy().tobytes() == b[column].numpy().tobytes(), column


def test_a_mistyped_rerun_leaves_the_finished_run(trained: dict[str, str], tmp_path: Path) -> None:
    explain_run(config_of(trained, tmp_path))
    whole = Atlas(tmp_path / "atlas.zarr").read()
    wrongs = (
        {"method": "minimax"},
        {"generator": "nowhere"},
        {"target": 7},
        {"generator": None},
        {"method": "latent-shift"},
    )
    for wrong in wrongs:
        with pytest.raises(CfxError):
            explain_run(config_of(trained, tmp_path, **wrong))
        assert Atlas(tmp_path / "atlas.zarr").missing() == []
        assert (tmp_path / "summary.json").exists()
        assert torch.equal(Atlas(tmp_path / "atlas.zarr").read().x_cf, whole.x_cf)


def test_another_run_is_not_resumed(trained: dict[str, str], tmp_path: Path) -> None:
    explain_run(config_of(trained, tmp_path))
    for key, other in (("classifier", trained["oracle"]), ("seed", 3), ("method", "gradient-attack")):
        with pytest.raises(AtlasError, match=rf"cannot resume an atlas of another run .*{key}: stored"):
            explain_run(config_of(trained, tmp_path, **{key: other}))
    images = {"kind": "brain", "n": 6, "seed": 6, "size": SIZE}
    with pytest.raises(AtlasError, match=r"images: stored .* start anew \(resume: false"):
        explain_run(config_of(trained, tmp_path, data=images))
    was = Atlas(tmp_path / "atlas.zarr").read()
    explain_run(config_of(trained, tmp_path, data=images, resume=False))
    assert not torch.equal(Atlas(tmp_path / "atlas.zarr").read().x, was.x)


def test_a_second_run_in_the_folder_is_refused(trained: dict[str, str], tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(CfxError, match="another run is at work"):
        explain_run(config_of(trained, tmp_path))


def test_a_classifier_is_no_generator(trained: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="generator: expected a diffusion checkpoint"):
        explain_run(config_of(trained, tmp_path, generator=trained["classifier"]))


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: a\nclasifier: b\n")
    with pytest.raises(InputError, match="clasifier"):
        read_as(ExplainConfig, tmp_path / "x.yaml")


def test_a_gate_says_of_every_edit_whether_it_is_in_distribution(trained: dict[str, str], tmp_path: Path) -> None:
    generator = "tests.ood.detectors:GaussianGenerator"
    gate = {"reference": {"kind": "brain", "n": 40, "seed": 9, "size": SIZE}, "generator": generator}
    gate["settings"] = {"levels": [0.3, 0.6], "clean": []}
    part = {"part": "attempt"}  # these networks reach no margin
    plain = explain_run(config_of(trained, tmp_path / "plain", **part))
    summary = explain_run(config_of(trained, tmp_path / "run", gate=gate, **part))
    found = Atlas(tmp_path / "run/atlas.zarr").read()
    assert found.gate_p is not None
    assert found.gate_p_before is not None
    edited = found.edited.flatten(1).any(1)
    assert bool(edited.any())
    assert torch.equal(found.gate_p.isnan(), ~edited)
    assert bool(((found.gate_p_before > 0) & (found.gate_p_before <= 1)).all())
    assert summary["gate_p"] == pytest.approx(float(found.gate_p[edited].quantile(0.5)))
    assert summary["gate_out"] == pytest.approx(float((found.gate_p[edited] <= 0.05).double().mean()))
    assert "gate p" in (tmp_path / "run/report.html").read_text()
    assert any(line.startswith("out of distribution") for line in lines(summary))
    without = Atlas(tmp_path / "plain/atlas.zarr").read()
    assert without.gate_p is None
    assert torch.equal(without.x_cf, found.x_cf)
    assert not {key for key in plain if key.startswith("gate")}
    again = explain_run(config_of(trained, tmp_path / "run", gate=gate, **part))
    assert again["gate_p"] == summary["gate_p"]
    other = gate | {"settings": {"levels": [0.3]}}
    with pytest.raises(AtlasError, match="gate: stored"):
        explain_run(config_of(trained, tmp_path / "run", gate=other, **part))
