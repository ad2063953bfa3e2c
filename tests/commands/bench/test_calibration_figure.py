"""A picture of every task."""

from cfx.commands.bench.calibration_figure import diagrams
from tests.conformal.samples import drawn


def test_a_column_a_task():
    p, y = drawn(300)
    one, two = (diagrams(dict.fromkeys(names, (p, p, y))) for names in (["a"], ["a", "b"]))
    assert one.startswith(b"\x89PNG")
    width = [int.from_bytes(png[16:20], "big") for png in (one, two)]
    assert width[1] == 2 * width[0]
