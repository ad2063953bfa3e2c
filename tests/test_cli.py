"""The command line: quick to ask for help, and a thin shell over the Python API."""

import subprocess
import sys

from typer.testing import CliRunner

HEAVY = ("diffusers", "monai", "accelerate", "zarr", "matplotlib", "nilearn")


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom cfx.cli import app\n"
        "result = CliRunner().invoke(app, ['--help'])\nassert result.exit_code == 0 and 'train' in result.output\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]\nassert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_train_hands_overrides_on_and_names_a_wrong_key(tmp_path, caplog):
    from cfx.cli import app

    (tmp_path / "x.yaml").write_text("name: x\nsteps: 1\nnetwork: {name: cnn}\nobjective: {kind: classifier}\n")
    result = CliRunner().invoke(app, ["train", str(tmp_path / "x.yaml"), "--optimizer.lrr", "3e-4"])
    assert result.exit_code == 2
    assert "unknown key `optimizer.lrr`; did you mean `optimizer.lr`?" in caplog.text


def test_a_warning_of_cfx_is_one_line_said_once(tmp_path, monkeypatch):
    import warnings

    from pydantic import BaseModel

    from cfx.cli import build
    from cfx.commands import registry
    from cfx.core.errors import CfxWarning

    def command(config, words):
        for _ in range(2):
            warnings.warn("look at this", CfxWarning, stacklevel=2)
        return "done"

    class Empty(BaseModel):
        pass

    monkeypatch.setattr(registry.Verb, "load", lambda verb: (Empty, command))
    (tmp_path / "x.yaml").write_text("{}\n")
    result = CliRunner().invoke(build(), ["explain", str(tmp_path / "x.yaml")])
    assert result.exit_code == 0
    assert result.stderr == "warning: look at this\n"
    assert result.stdout == "done\n"


def test_ctrl_c_says_what_is_kept(tmp_path, monkeypatch):
    from pydantic import BaseModel

    from cfx.cli import build
    from cfx.commands import registry

    def command(config, words):
        raise KeyboardInterrupt

    class Empty(BaseModel):
        pass

    monkeypatch.setattr(registry.Verb, "load", lambda verb: (Empty, command))
    (tmp_path / "x.yaml").write_text("{}\n")
    result = CliRunner().invoke(build(), ["explain", str(tmp_path / "x.yaml")])
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    from cfx.cli import app

    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"cfx {version('cfx')}\n")


def test_completion_can_be_installed():
    from cfx.cli import app

    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).output
