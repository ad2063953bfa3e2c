"""One family: what cfx raises on purpose can be caught as one, and as what Python would have raised."""

import pytest

from cfx.core import errors


@pytest.mark.parametrize("name", ["InputError", "CheckpointError", "AtlasError", "LaunchError"])
def test_every_error_is_of_the_family(name):
    kind = getattr(errors, name)
    with pytest.raises(errors.CfxError, match="what was expected"):
        raise kind("what was expected")


def test_wrong_input_is_a_value_error_and_a_wrong_launch_a_runtime_error():
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.LaunchError, RuntimeError)
    assert not issubclass(errors.AtlasError, (ValueError, RuntimeError))
