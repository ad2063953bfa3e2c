"""Configuration of any run: overrides reach every value of a file, and what they cannot reach is named."""

import copy

import pytest

from cfx.core.errors import InputError
from cfx.runtime.config import put

VALUES = {
    "steps": 10,
    "optimizer": {"lr": 1e-4},
    "methods": [{"method": "ddim"}, {"method": "ace"}],
    "n": [],
}


@pytest.mark.parametrize(
    ("dotted", "text", "where"),
    [
        ("steps", "5", lambda v: v["steps"]),
        ("optimizer.lr", "5", lambda v: v["optimizer"]["lr"]),
        ("optimizer.beta.low", "5", lambda v: v["optimizer"]["beta"]["low"]),
        ("methods.0.rows", "5", lambda v: v["methods"][0]["rows"]),
        ("methods.1.settings.steps", "5", lambda v: v["methods"][1]["settings"]["steps"]),
        ("methods.1", "5", lambda v: v["methods"][1]),
    ],
)
def test_an_override_is_put_where_its_key_leads_and_nowhere_else(dotted, text, where):
    values = copy.deepcopy(VALUES)
    put(values, dotted, text)
    assert where(values) == 5
    assert str(values).count("5") == 1
    assert len(values["methods"]) == 2
    assert set(values) == set(VALUES)


@pytest.mark.parametrize(
    ("dotted", "text", "message"),
    [
        ("steps.more", "1", "override steps.more: steps is neither a mapping nor a list, so it has no 'more'"),
        ("methods.2.rows", "1", "override methods.2.rows: methods is a list; expected a position below 2, got '2'"),
        ("methods.-1.rows", "1", "expected a position below 2, got '-1'"),
        ("methods.ddim.rows", "1", "expected a position below 2, got 'ddim'"),
        ("methods.2", "1", "expected a position below 2, got '2'"),
        ("methods.0.method.x", "1", "methods.0.method is neither a mapping nor a list"),
        ("n.0", "1", "expected nothing: the list is empty, got '0'"),
        ("steps", "[1", "override steps: expected a value as in YAML, got '[1'"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(dotted, text, message):
    values = copy.deepcopy(VALUES)
    with pytest.raises(InputError) as error:
        put(values, dotted, text)
    assert message in str(error.value)
    assert values == VALUES
