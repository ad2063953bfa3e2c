"""A metric is registered once, and everything that shows it reads the same words."""

import pytest

from cfx.core.errors import InputError
from cfx.display.catalogue import Metric, known, meaning, metric, register

HEIGHT = Metric("toy_height", "height", "How tall it is.", "higher", ".1f")


@pytest.fixture(autouse=True)
def height():
    register(HEIGHT)


def test_one_name_has_one_meaning():
    register(HEIGHT)  # again the same is no second meaning
    with pytest.raises(InputError, match="metric toy_height: expected one meaning"):
        register(Metric("toy_height", "height", "How deep it is."))
    assert known("toy_height") is metric("toy_height") is HEIGHT
    assert known("toy_depth") is None


def test_values_are_written_with_their_interval():
    assert HEIGHT.axis == "height (higher is better)"
    assert metric("toy_depth").axis == "toy depth"
    assert HEIGHT.said(None) == "-"
    assert HEIGHT.spread({}) == "-"
    assert HEIGHT.spread({"toy_height": 1.23}) == "1.2"
    assert HEIGHT.spread({"toy_height": 1.23, "toy_height_low": 1.0, "toy_height_high": 2.0}) == "1.2 [1.0, 2.0]"


def test_a_condition_before_or_after_the_key_is_said():
    for key in ("toy_height_boundary", "boundary_toy_height"):
        assert meaning(key, ["typical", "boundary"]) == "How tall it is. At depth boundary."
    assert meaning("toy_height") == "How tall it is."
    assert meaning("boundary_toy_height") == ""


def test_the_metrics_of_counterfactuals_are_all_there():
    from cfx.commands.bench.table import COSTS, SHOWN
    from cfx.counterfactual.explain import DEPTHS

    assert all(known(name) is not None for name in (*SHOWN, *COSTS))
    assert DEPTHS == ("typical", "boundary")
