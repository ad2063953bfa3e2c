"""Launchers that would train nothing, or everything twice, are refused; rows come back in order."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cfx.core.errors import InputError, LaunchError
from cfx.runtime.processes import check_launch, check_world, gather_rows, make_accelerator, my_rows

ROOT = Path(__file__).parent.parent.parent
RANKS = r"""
import torch
from cfx.runtime.processes import gather_rows, leave, make_accelerator, my_rows
accelerator = make_accelerator()
rows = torch.arange(7)[list(my_rows(7, accelerator))]
joined = torch.cat(gather_rows(rows, accelerator)).tolist()
assert joined == list(range(7)), joined
print(f"world {accelerator.num_processes} {len(rows)}\n", end="", flush=True)
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


def test_torchrun_makes_one_world_whose_rows_gather_in_order(tmp_path):
    done = launch(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(done.stdout.splitlines()) == ["world 2 3", "world 2 4"]


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


def test_alone_the_rows_are_ours():
    accelerator = make_accelerator()
    assert list(my_rows(5, accelerator)) == [0, 1, 2, 3, 4]
    assert gather_rows("x", accelerator) == ["x"]


def test_a_tracker_that_is_not_installed_is_refused():
    with pytest.raises(InputError, match=r"trackers: expected some of those installed, \[.*got \['nonesuch'\]"):
        make_accelerator(trackers=["nonesuch"])
