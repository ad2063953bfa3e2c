"""Every verb that is offered can be loaded, and is what the registry says a verb is."""

import inspect

import pytest
from typer.main import get_command

from cfx.cli import app
from cfx.commands.registry import BENCHES, VERBS
from cfx.runtime.config import RunConfig, read_as
from cfx.runtime.shipped import located

EVERY = VERBS | {f"bench {name}": verb for name, verb in BENCHES.items()}


@pytest.mark.parametrize("name", EVERY)
def test_a_verb_has_a_configuration_and_what_runs_it(name: str) -> None:
    config, command = EVERY[name].load()
    assert issubclass(config, RunConfig)
    assert list(inspect.signature(command).parameters) == ["config", "words"]


@pytest.mark.parametrize("name", [name for name, verb in EVERY.items() if verb.config])
def test_the_configuration_a_verb_runs_with_by_itself_is_there_and_whole(name: str) -> None:
    verb = EVERY[name]
    assert isinstance(read_as(verb.load()[0], located(verb.config)), RunConfig)


def test_the_command_line_offers_them_with_their_sentence() -> None:
    line = get_command(app)
    for group, verbs in ((line, VERBS), (line.commands["bench"], BENCHES)):
        assert {name: group.commands[name].help for name in verbs} == {name: verb.help for name, verb in verbs.items()}
