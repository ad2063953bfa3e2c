"""Provenance: what was typed, with which versions."""

import pytest

from cfx.runtime import provenance


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
