"""Provenance: what was typed, on what, with which versions and which commit."""

import json
import subprocess
from datetime import datetime

import pytest
import torch

from cfx.core.cohort import Cohort, Part
from cfx.runtime import provenance
from cfx.runtime.processes import make_accelerator


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/x/cfx/training/__main__.py", "a.yaml", "--steps", "3"], "python -m cfx.training a.yaml --steps 3"),
        (["/x/bin/cfx", "train", "a.yaml"], "cfx train a.yaml"),
        ([""], "cfx.training.train(...)"),
    ],
)
def test_the_recorded_command_is_what_was_typed(argv, command):
    assert provenance.command(argv) == command


def git(*words):
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@y.z", *words], check=True, capture_output=True)


def test_the_commit_says_whether_files_differ_from_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_commit() is None
    git("init", "--quiet")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "--quiet", "-m", "a")
    commit = provenance.git_commit()
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "a").write_text("2")
    assert provenance.git_commit() == commit + "+"


def test_versions_are_those_of_what_is_installed(monkeypatch):
    found = provenance.versions()
    assert found["torch"] == torch.__version__
    assert set(found) <= set(provenance.PACKAGES)
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    assert provenance.versions() == {"torch": torch.__version__}


def test_hardware_in_words():
    assert provenance.hardware(torch.device("cpu")).startswith(f"CPU, {torch.get_num_threads()} threads (")


def test_a_run_is_told_as_json(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/x/bin/cfx", "train", "a.yaml"])
    found = provenance.provenance({"name": "toy"}, 5, 1.26, make_accelerator(), {"loss": 0.5})
    assert json.loads(json.dumps(found)) == found
    assert (found["command"], found["steps"], found["training_seconds"]) == ("cfx train a.yaml", 5, 1.3)
    assert (found["processes"], found["figures"], found["config"]) == (1, {"loss": 0.5}, {"name": "toy"})


def test_images_are_known_by_their_values_however_they_are_held():
    images = Cohort(torch.linspace(-1, 1, 5 * 64).reshape(5, 1, 8, 8), torch.tensor([0, 1, 0, 1, 1]))
    assert provenance.source_print(None) == "none"
    assert provenance.source_print(Part(images, torch.arange(5))) == provenance.source_print(images)
    brighter = images.x.clone()
    brighter[4, 0, 3, 3] -= 0.01
    others = [
        images[:-1], images[[1, 2, 3, 4, 0]], images.replace(x=brighter), images.replace(y=1 - images.y),
        images.replace(ids=tuple("abcde")), Cohort(images.x),
    ]  # fmt: skip
    prints = [provenance.source_print(other) for other in [images, *others]]
    assert len(set(prints)) == len(prints)


def test_where_rows_were_made_is_told_with_the_command():
    found = provenance.made("cfx explain mine.yaml", torch.device("cpu"))
    assert found["command"] == "cfx explain mine.yaml"
    assert found["hardware"].startswith("CPU, ")
    assert "torch" in found["versions"]
    assert datetime.fromisoformat(found["date"]).tzinfo is not None


PLANTED = "#!/bin/sh\ntouch {}\ncat\n"


def test_nothing_that_a_repository_names_is_run(tmp_path, monkeypatch):
    """A file system monitor, a filter, a hook and a remote that would each leave a file behind."""
    ran, script = tmp_path / "ran", tmp_path / "planted.sh"
    script.write_text(PLANTED.format(ran))
    script.chmod(0o755)
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git("init", "--quiet")
    (folder / "a").write_text("1")
    (folder / ".gitattributes").write_text("a filter=planted\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "a")
    for key in ("core.fsmonitor", "filter.planted.clean", "filter.planted.process"):
        git("config", key, str(script))
    git("config", "filter.planted.required", "true")
    (folder / ".git" / "hooks").mkdir(exist_ok=True)
    (folder / ".git" / "hooks" / "post-index-change").write_text(PLANTED.format(ran))
    (folder / ".git" / "hooks" / "post-index-change").chmod(0o755)
    (folder / "a").write_text("2")
    commit = provenance.git_commit()
    assert not ran.exists()
    assert commit is not None
    assert commit.endswith("+")
