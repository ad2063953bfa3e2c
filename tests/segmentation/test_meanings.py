"""The room's metrics in the catalogue."""

from dataclasses import fields

import pytest

import cfx.segmentation  # noqa: F401
from cfx.display.catalogue import known
from cfx.segmentation.meanings import SAMPLES
from cfx.segmentation.metrics import MaskScores


@pytest.mark.parametrize("n", SAMPLES)
def test_what_changes_with_the_number_of_samples_has_it_in_its_head(n):
    found = known(f"ged_{n}")
    assert found is not None
    assert found.axis == f"GED_{n} (lower is better)"
    assert f"Of {n} samples" in found.meaning


def test_every_figure_has_a_meaning():
    figures = [f.name for f in fields(MaskScores) if f.name not in ("ids", "n_samples", "n_readers")]
    assert [name for name in figures if known(name) is None and known(f"{name}_4") is None] == []
