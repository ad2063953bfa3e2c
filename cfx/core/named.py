"""Things by name, each a dataclass of settings in a module of its own, which is imported when it is first asked for."""

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any

from cfx.core.errors import InputError


def build(what: str, places: Mapping[str, str], package: str, name: str, settings: Mapping[str, object]) -> Any:  # noqa: ANN401
    """The thing of that name with its usual settings, or these.

    Args:
        what: What it is, used in errors.
        places: `module:Class` under the package, by name.
        package: Where the modules are.
        name: Which.
        settings: Settings that differ from the defaults.

    Raises:
        InputError: an unknown name or setting, or settings of another type.
    """
    if name not in places:
        raise InputError(f"{what}: expected one of {list(places)}, got {name!r}")
    module, kind = places[name].split(":")
    cls = getattr(import_module(f"{package}.{module}"), kind)
    known = [f.name for f in fields(cls)]
    if unknown := sorted(set(settings) - set(known)):
        raise InputError(f"{name}: expected settings among {known}, got {unknown}")
    try:
        return cls(**settings)
    except TypeError as error:  # text where a number belongs, say
        raise InputError(f"{name}: expected settings like those of {cls()}, got {dict(settings)}") from error
