"""One family: what cfx raises on purpose can be caught as one, and as what Python would have raised."""

import warnings

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


def test_warnings_of_cfx_are_heard_once_each_and_shown_as_ever():
    with warnings.catch_warnings(record=True, action="always") as shown, errors.heard() as found:
        for text in ("first", "second", "first"):
            warnings.warn(text, errors.CfxWarning, stacklevel=1)
        warnings.warn("of another", UserWarning, stacklevel=1)
    assert found == ["first", "second"]
    assert [str(warning.message) for warning in shown] == ["first", "second", "first", "of another"]


@pytest.mark.parametrize(
    ("error", "text"),
    [(KeyError("size"), "KeyError: 'size'"), (ValueError("a\n  b"), "a b"), (AssertionError(), "AssertionError")],
)
def test_an_error_in_one_line_says_what_it_is(error, text):
    assert errors.in_one_line(error) == text
