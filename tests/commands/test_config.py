"""The page of all keys is complete and up to date, and the command prints parts of it."""

import re

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from cfx.cli import app
from cfx.commands.config import CONFIGS, configuration, model
from cfx.core.errors import InputError
from cfx.runtime.keys import Keys


def test_the_page_is_up_to_date(root):
    assert (root / "docs" / "configuration.md").read_text() == configuration(), "run `make docs`"


@pytest.mark.parametrize("verb", CONFIGS)
def test_every_key_is_listed_and_has_a_meaning(verb):
    text = configuration(verb.split())
    listed = set(re.findall(r"^ *- `(\w+)(?:` \(|: )", text, re.MULTILINE))
    assert {path[-1] for path in Keys(model(verb)).paths()} == listed
    assert [line for line in text.splitlines() if re.search(r"\): *$", line)] == []
    assert "(any value" not in text


def test_every_configuration_of_a_run_is_listed():
    """A verb whose configuration is missing here has no reference."""
    from cfx.runtime.config import RunConfig

    def below(kind: type[BaseModel]) -> set[type]:
        return {kind}.union(*(below(inner) for inner in kind.__subclasses__()))

    listed = {model(verb) for verb in CONFIGS}
    assert {kind for kind in below(RunConfig) if kind.__module__.startswith("cfx.")} - {RunConfig} <= listed


def test_a_part_by_its_verb():
    assert configuration(["bench"]).count("\n## cfx bench ") + 1 == sum(verb.startswith("bench") for verb in CONFIGS)
    with pytest.raises(InputError, match=r"config: expected one of \['train', .*got 'exlain'"):
        configuration(["exlain"])


def test_the_command_prints_and_refuses():
    printed = CliRunner().invoke(app, ["config", "bench", "planted"])
    assert (printed.exit_code, printed.stdout) == (0, configuration(["bench", "planted"]))
    refused = CliRunner().invoke(app, ["config", "bench", "plated"])
    assert refused.exit_code == 2
    assert "got 'bench plated'" in refused.stderr
