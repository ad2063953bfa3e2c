"""What to say of values that are no configuration: where the fault is, and what was probably meant."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cfx.runtime.keys import Keys, Path, constants, follow, holds

_NEAR = 0.5  # least likeness of a suggestion: that of two letters that changed places, `rl` for `lr`
_ELSEWHERE = 0.75  # how near a key of the very same name is that belongs elsewhere
_TAGS = ("union_tag_invalid", "union_tag_not_found")


def faults(model: type[BaseModel], values: Mapping[str, Any], error: ValidationError) -> list[str]:
    """One sentence a fault of `values`, in the order of pydantic's."""
    keys = Keys(model)
    found = [(_path(keys, e, values), e) for e in error.errors(include_url=False)]
    return [_sentence(keys, values, path, e) for path, e in found if not _beside_the_point(path, e, found)]


def _path(keys: Keys, error: ErrorDetails, values: object) -> Path:
    """Where a fault is in the user's own values: pydantic also names each kind that was chosen, which is no key."""
    path: list[str | int] = []
    chosen = -1  # how far the path was when a kind was passed over
    for part in error["loc"]:
        if len(path) > chosen and part in _kinds(keys, values, path):
            chosen = len(path)
        elif holds(follow(values, path), part):
            path.append(part)
    return [*path, error["loc"][-1]] if error["type"] == "missing" else path


def _kinds(keys: Keys, values: object, path: Path) -> list[object]:
    """The kinds of mapping that may stand at a path, where there are several."""
    found = keys.mappings(keys.node(values, path))
    return [kind for mapping in found for kind in constants(mapping).values()] if len(found) > 1 else []


def _beside_the_point(path: Path, error: ErrorDetails, found: Sequence[tuple[Path, ErrorDetails]]) -> bool:
    """Whether a fault only says that a value is not the other thing it might have been: a number, not a mapping."""
    deeper = any(len(p) > len(path) and list(p[: len(path)]) == list(path) for p, _ in found)
    tagged = error["type"] not in _TAGS and any(list(p) == list(path) and e["type"] in _TAGS for p, e in found)
    return deeper or tagged


def _sentence(keys: Keys, values: Mapping[str, Any], path: Path, error: ErrorDetails) -> str:
    """One fault in words."""
    where, context = dotted(path), error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return _unknown(keys, values, path)
        case "missing":
            return f"missing key `{where}`"
        case "union_tag_invalid":
            name = context["discriminator"].strip("'")
            return _choice(f"{where}.{name}", context["tag"], _quoted(context["expected_tags"]))
        case "union_tag_not_found":
            name = context["discriminator"].strip("'")
            choices = [str(constants(m)[name]) for m in keys.mappings(keys.node(values, path))]
            return f"missing key `{where}.{name}`; choices: {', '.join(choices)}"
        case "literal_error":
            return _choice(where, error["input"], _quoted(context["expected"]))
        case "value_error":
            return f"{where}: {context['error']}" if where else str(context["error"])
    got = error["input"]
    return f"{where or 'top level'}: {error['msg']}" + (f", got {got!r}" if isinstance(got, (str, int, float)) else "")


def _unknown(keys: Keys, values: Mapping[str, Any], path: Path) -> str:
    """A key that does not exist: the nearest that does, and all that may stand there."""
    *above, last = path
    here = keys.meant(keys.node(values, above), follow(values, above))
    names = list(here["properties"]) if here else []
    kind = "".join(f" of {name} {value}" for name, value in (constants(here) if here else {}).items())
    best = _most_like(str(last), above, names, [p for p in keys.paths() if p[-1] == last])
    meant = f"; did you mean `{best}`?" if best else "."
    known = f" Keys{kind}: {', '.join(names)}" if names else ""
    return f"unknown key `{dotted(path)}`{meant}{known}"


def _most_like(last: str, above: Path, names: Sequence[str], same: Iterable[Path]) -> str | None:
    """The nearest of the keys beside a wrong one, or a key of that very name in another place."""
    near = [(difflib.SequenceMatcher(None, last, name).ratio(), dotted([*above, name])) for name in names]
    place = [part for part in above if isinstance(part, str)]
    near += [(_ELSEWHERE, dotted(p)) for p in same if list(p[:-1]) != place]
    likeness, best = max(near, key=lambda pair: pair[0], default=(0.0, ""))
    return best if likeness >= _NEAR else None


def _choice(where: str, given: object, choices: Sequence[str]) -> str:
    """A value that is none of its choices: the nearest, and all."""
    best = difflib.get_close_matches(str(given), choices, n=1, cutoff=_NEAR)
    meant = f"; did you mean {best[0]!r}?" if best else "."
    return f"{where}: unknown choice {given!r}{meant} Choices: {', '.join(choices)}"


def dotted(path: Path) -> str:
    """A path as it is typed: `data.confounders.0.q`."""
    return ".".join(map(str, path))


def _quoted(text: str) -> list[str]:
    """The words in quotes of pydantic's lists of choices."""
    return re.findall(r"'([^']*)'", text) or text.replace(" or ", ", ").split(", ")
