"""Every name leads to a method of that name."""

import pytest

from cfx.core.errors import InputError
from cfx.counterfactual import METHODS, Method, build_method


@pytest.mark.parametrize("name", METHODS)
def test_names_lead_to_methods(name):
    method = build_method(name)
    assert isinstance(method, Method)
    assert method.name == name


def test_settings_are_checked():
    assert build_method("minimal", steps=5).steps == 5
    with pytest.raises(InputError, match=r"minimal: expected settings among .*, got \['speed'\]"):
        build_method("minimal", speed=5)
    with pytest.raises(InputError, match=r"method: expected one of .*, got 'maximal'"):
        build_method("maximal")
