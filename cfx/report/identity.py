"""What a result is of, and how to make it again: networks, data, settings, versions, and their fingerprints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cfx.atlas import Atlas
from cfx.counterfactual.result import Counterfactuals

NETWORKS = ("classifier", "generator", "oracle")


@dataclass(frozen=True)
class Fact:
    """One line: what it is, what it is here, and the fingerprint that tells it from all others."""

    name: str
    value: str
    fingerprint: str = ""


def said(value: object) -> str:
    """A value of a configuration in a line: of mappings what was set, `key value` after `key value`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {said(part)}" for key, part in value.items() if part not in (None, "", [], {}))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(said(part) for part in value) + "]"
    return str(value)


def identity(result: Counterfactuals, atlas: Atlas[Counterfactuals] | None) -> list[Fact]:
    """Every fact that is recorded, in the order a reader asks for them.

    Args:
        result: Its rows; images may be left unread.
        atlas: Where it is kept, with what the run wrote down: `config`, `made` (date, command, hardware, versions) and
            the fingerprints. None for a result in memory, which knows its settings alone.
    """
    root: Mapping[str, Any] = {} if atlas is None else atlas.attributes
    config, prints, made = (root.get(key) or {} for key in ("config", "cfx_fingerprint", "made"))
    absent = "none" if config else ""
    facts = [Fact(name.capitalize(), said(config.get(name) or absent), prints.get(name, "")) for name in NETWORKS]
    facts += [
        Fact("Data", said(config.get("data", "")), prints.get("images", "")),
        Fact("Reference images", said(config.get("reference") or absent), prints.get("reference", "")),
        Fact("Method", result.method, prints.get("settings", "")),
        Fact("Depth and seed", f"{result.depth}, {result.seed}"),
        Fact("Target class", said(config.get("target") if config.get("target") is not None else _target(bool(config)))),
        Fact("Date", said(made.get("date", "")).replace("T", " ").replace("+00:00", " UTC")),
        Fact("Command", said(made.get("command", ""))),
        Fact("Hardware", said(made.get("hardware", ""))),
        Fact("Versions", said(made.get("versions") or _version(root))),
    ]
    return [fact for fact in facts if fact.value or fact.fingerprint not in ("", "none")]


def _target(configured: bool) -> str:
    return "the most probable one besides the predicted" if configured else ""


def _version(root: Mapping[str, Any]) -> str:
    return f"cfx {root['cfx_version']}" if "cfx_version" in root else ""
