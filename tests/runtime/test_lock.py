"""One run a folder: a second is refused while the first runs, and a dead one keeps nothing."""

import os
import signal
import subprocess
import sys

import pytest

from cfx.core.errors import CfxError
from cfx.runtime.lock import alone

HOLD = """
import sys, time
from pathlib import Path
from cfx.runtime.lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_refused_with_the_name_of_the_first(tmp_path, holder):
    said = f"another run is at work in .*run .process {holder.pid} on .*, since 20"
    with pytest.raises(CfxError, match=said), alone(tmp_path / "run"):
        pass
    with alone(tmp_path / "another"):
        pass


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_run_keeps_nothing(tmp_path, holder, death):
    os.kill(holder.pid, death)
    holder.wait()
    with alone(tmp_path / "run"):
        pass


def test_it_is_free_again_after_an_error_and_leaves_no_name(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), alone(tmp_path):
            raise ZeroDivisionError
    assert not (tmp_path / ".holder.json").exists()


def test_a_run_inside_a_run_needs_a_folder_of_its_own(tmp_path):
    with alone(tmp_path), alone(tmp_path / "part"), pytest.raises(CfxError, match="another run"), alone(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CfxError, match=r"cannot write in .*file"), alone(tmp_path / "file"):
        pass


def test_every_verb_holds_its_folder(tmp_path):
    """Two runs in one folder would mix their files, whatever they are; training has a test of its own."""
    from cfx.commands.registry import BENCHES, VERBS

    verbs = {name: verb for name, verb in (VERBS | BENCHES).items() if name != "import"}  # writes a checkpoint, whole
    with alone(tmp_path):
        for kind, command in (verb.load() for verb in verbs.values()):
            with pytest.raises(CfxError, match="another run is at work"):
                command(kind.model_construct(name="x", out=str(tmp_path)), "")
