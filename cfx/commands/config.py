"""Every key of every configuration, as `cfx config` prints it and `make docs` writes it to docs/configuration.md."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten

from pydantic import BaseModel

from cfx.commands.registry import BENCHES, VERBS, Verb
from cfx.core.errors import InputError
from cfx.runtime.config import Config, RunConfig, read_as, read_yaml
from cfx.runtime.reference import reference

CONFIGS: dict[str, Verb | None] = {
    "train": None,
    **{name: verb for name, verb in VERBS.items() if verb.config is None},
    **{f"bench {name}": verb for name, verb in BENCHES.items()},
}
"""Every verb that reads a configuration of its own; training is a room's, not a command's."""

_LONGEST = 240  # characters of the faults of a file that is another verb's

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


def verb_of(path: Path) -> tuple[str, type[RunConfig]]:
    """Which verb a file is for: the one that knows most of its keys.

    Raises:
        InputError: no such file, or no YAML of keys.
    """
    keys = set(read_yaml(path))
    return min(configs(), key=lambda pair: _misfit(pair[1], keys))


def read_for(model: type[Config], path: Path, overrides: Mapping[str, str] | None = None) -> Config:
    """As `read_as`, which says besides that a file is one for another verb, if it is.

    Raises:
        InputError: as `read_as`.
    """
    try:
        return read_as(model, path, overrides)
    except InputError as error:
        if (verb := another_verb(model, path)) is None:
            raise
        faults = re.sub(r"\.? Keys[^;:]*:[^;]*", "", str(error).removeprefix(f"config {path}: "))  # a page of them
        faults = shorten(faults, _LONGEST, placeholder=" ...")
        said = f"this looks like a file for cfx {verb}: cfx {verb} {path}"
        raise InputError(f"config {path}: {said}; for this command: {faults}") from error


def another_verb(model: type[BaseModel], path: Path) -> str | None:
    """The verb that knows more of the keys of a file than the one it was given to; None where none does."""
    try:
        keys = set(read_yaml(path))
    except InputError:
        return None
    unknown, _ = _misfit(model, keys)
    if not unknown:
        return None
    verb, best = verb_of(path)
    return verb if _misfit(best, keys)[0] < unknown else None


def _misfit(model: type[BaseModel], keys: set[str]) -> tuple[int, int]:
    """Keys that a configuration does not know, and keys that it would miss; the fewer the better."""
    missed = [name for name, f in model.model_fields.items() if f.is_required() and name not in keys]
    return len(keys - model.model_fields.keys()), len(missed)
