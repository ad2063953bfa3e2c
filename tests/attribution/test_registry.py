"""Every method by its name, with settings that are checked."""

import pytest

from cfx.attribution import ATTRIBUTIONS, Method, build_attribution
from cfx.core.errors import InputError


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_a_method_is_called_what_it_is_registered_as(name):
    made = build_attribution(name)
    assert isinstance(made, Method)
    assert made.name == name
    assert made.family in ("classic", "engine", "control")
    assert made.whole in ("change", "value", "")


def test_settings_are_checked():
    assert build_attribution("occlusion", patch=3).patch == 3
    with pytest.raises(InputError, match="occlusion: expected settings among"):
        build_attribution("occlusion", size=3)
