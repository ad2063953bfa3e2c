"""Launchers that would train nothing, or everything twice, are refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cfx.core.errors import InputError, LaunchError
from cfx.runtime.processes import check_launch, check_world, make_accelerator

ROOT = Path(__file__).parent.parent.parent
RANKS = r"""
from cfx.runtime.processes import make_accelerator
from cfx.runtime.shares import leave
print(f"world {make_accelerator().num_processes}\n", end="", flush=True)
leave()
"""


def launch(tmp_path, *launcher):
    (tmp_path / "script.py").write_text(RANKS)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, *launcher, str(tmp_path / "script.py")]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=200)


def test_the_cpu_launcher_that_starts_one_process_is_refused(tmp_path):
    done = launch(tmp_path, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2")
    assert done.returncode != 0
    assert (
        "LaunchError: accelerate was asked for several processes but its --cpu launcher starts only one" in done.stderr
    )
    assert "torchrun --standalone --nproc_per_node N -m cfx.training CONFIG" in done.stderr


def test_two_worlds_of_one_are_refused(monkeypatch):
    make_accelerator()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match="started 2 processes but 1 found each other"):
        make_accelerator()


def test_guards_read_only_the_environment():
    asked = {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"}
    with pytest.raises(LaunchError):
        check_launch(asked)
    check_launch(asked | {"WORLD_SIZE": "2"})
    check_launch({"ACCELERATE_MIXED_PRECISION": "no"})
    check_world({}, 1)


def test_a_tracker_that_is_not_installed_is_refused():
    with pytest.raises(InputError, match=r"trackers: expected some of those installed, \[.*got \['nonesuch'\]"):
        make_accelerator(trackers=["nonesuch"])
