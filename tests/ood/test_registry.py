"""Detectors by name: each can be made, says what it needs, and refuses settings it does not have."""

from dataclasses import fields

import pytest

from cfx.core.errors import InputError
from cfx.ood import DETECTORS, build_detector
from cfx.ood.detector import Detector, Tools


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_every_detector_can_be_made(name):
    made = build_detector(name)
    assert isinstance(made, Detector)
    assert made.name == name
    assert set(made.needs) <= {f.name for f in fields(Tools)}


def test_unknown_settings_are_refused():
    with pytest.raises(InputError, match="denoising: expected settings among"):
        build_detector("denoising", sigma=1)


@pytest.mark.parametrize("settings", [{"widths": "wide"}, {"levels": 0.5}])
def test_settings_of_another_type_are_refused(settings):
    with pytest.raises(InputError, match="denoising: expected settings like those of Denoising"):
        build_detector("denoising", **settings)
