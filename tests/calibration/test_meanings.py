"""Every figure of this room has a name and a meaning."""

import cfx.calibration.meanings  # noqa: F401  # registers
from cfx.calibration import figures
from cfx.display.catalogue import known
from tests.conformal.samples import drawn


def test_every_figure_is_in_the_catalogue():
    names = [*figures(*drawn(50)), "error_to_true_p"]
    assert [name for name in names if known(name) is None and name not in ("accuracy", "ece")] == []
    assert known("ece_bins").better == "lower"
