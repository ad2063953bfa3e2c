"""Every key of every configuration, as `cfx config` prints it and `make docs` writes it to docs/configuration.md."""

import shlex
from collections.abc import Sequence

from cfx.commands.registry import BENCHES, VERBS, Verb
from cfx.core.errors import InputError
from cfx.runtime.config import RunConfig
from cfx.runtime.reference import reference

CONFIGS: dict[str, Verb | None] = {
    "train": None,
    **{name: verb for name, verb in VERBS.items() if verb.config is None},
    **{f"bench {name}": verb for name, verb in BENCHES.items()},
}
"""Every verb that reads a configuration of its own; training is a room's, not a command's."""

_HEAD = """\
# Configuration

A run is one YAML file, checked before anything starts. Any key can be given on the command line too, by its path:
`--optimizer.lr 3e-4`, and into a list by position: `--data.confounders.0.q 0.5`. In brackets: type and default.

*Made by `make docs` from the classes themselves; `cfx config explain` prints one part.*

"""


def configuration(words: Sequence[str] = ()) -> str:
    """The reference of the verbs that begin with `words` (`["bench"]`: all benches), in markdown; of all by default.

    Raises:
        InputError: no verb begins so.
    """
    wanted = [verb for verb in CONFIGS if verb.split()[: len(words)] == list(words)]
    if not wanted:
        raise InputError(f"config: expected one of {list(CONFIGS)}, got {shlex.join(words)!r}")
    seen: dict[str, str] = {}
    parts = [reference(model(verb), f"cfx {verb}", seen) for verb in wanted]
    return ("" if words else _HEAD) + "\n".join(parts)


def model(name: str) -> type[RunConfig]:
    """The class of a verb's configuration."""
    if (verb := CONFIGS[name]) is not None:
        return verb.load()[0]
    from cfx.training.config import TrainConfig

    return TrainConfig


def configs() -> list[tuple[str, type[RunConfig]]]:
    """Every verb with the class of its configuration."""
    return [(name, model(name)) for name in CONFIGS]
