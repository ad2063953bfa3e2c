"""Things by name are made with their settings, and refused by name."""

import pytest

from cfx.core.errors import InputError
from cfx.core.named import build

PLACES = {"once": "denoising:DenoisingOnce", "denoising": "denoising:Denoising"}


def test_it_is_made_with_its_settings():
    made = build("detector", PLACES, "cfx.ood", "denoising", {"widths": (2.0,)})
    assert made.widths == (2.0,)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("other", {}, r"thing: expected one of \['once', 'denoising'\], got 'other'"),
        ("denoising", {"width": 1}, r"denoising: expected settings among \['levels', 'clean', 'widths'\]"),
        ("denoising", {"widths": "wide"}, "denoising: expected settings like those of Denoising"),
    ],
)
def test_names_and_settings_that_are_not_there_are_refused(name, settings, said):
    with pytest.raises(InputError, match=said):
        build("thing", PLACES, "cfx.ood", name, settings)
