"""Every key of a configuration with type, default and meaning: what `cfx config` prints, and docs/configuration.md."""

import math
import re
import textwrap
from collections.abc import Iterator

import yaml
from pydantic import BaseModel

from cfx.runtime.keys import Keys, Schema, constants

_WORDS = {"string": "text", "boolean": "true or false", "object": "mapping", "array": "list"}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_WIDTH = 120


def reference(model: type[BaseModel], title: str, seen: dict[str, str] | None = None) -> str:
    """Every key of a configuration with type, default and meaning, in markdown, nested as the YAML is.

    Args:
        model: The class of the configuration.
        title: Its heading, such as the command that reads it.
        seen: Class of each nested mapping that was listed before, and where; what is listed here is added to it.
    """
    return _Reference(Keys(model), title, {} if seen is None else seen).text()


class _Reference:
    """The list of one configuration, while it is written."""

    def __init__(self, keys: Keys, title: str, seen: dict[str, str]) -> None:
        self.keys, self.title, self.seen = keys, title, seen

    def text(self) -> str:
        """The whole list."""
        head = textwrap.fill(meaning(self.keys.root), _WIDTH)
        self.seen[self.keys.root["title"]] = f"`{self.title}`"
        return "\n".join([f"## {self.title}", "", head, "", *self.listed(self.keys.root, (), 0)]) + "\n"

    def listed(self, mapping: Schema, above: tuple[str, ...], depth: int) -> Iterator[str]:
        """The keys of a mapping, and under each its own."""
        for name, node in mapping["properties"].items():
            if "const" not in node:
                told = meaning(node) or meaning(self.keys.whole(node))  # pydantic leaves out what both say
                yield _bullet(depth, f"`{name}` ({self.words(node)}; {self.default(name, mapping)}): {told}")
                yield from self.inside((*above, name), node, depth + 1)
        if mapping.get("additionalProperties") is True:
            yield _bullet(depth, f"any other key: {meaning(mapping)}")

    def inside(self, path: tuple[str, ...], node: Schema, depth: int) -> Iterator[str]:
        """The mappings that a key may hold, those that were not listed before."""
        found = self.keys.mappings(node)
        before = dict.fromkeys(self.seen[m["title"]] for m in found if m["title"] in self.seen)
        yield from (_bullet(depth, f"keys as for {place}") for place in before)
        for mapping in (m for m in found if m["title"] not in self.seen):
            self.seen[mapping["title"]] = f"`{'.'.join(path)}` of `{self.title}`"
            choice = ", ".join(f"{k}: {v}" for k, v in constants(mapping).items())
            if choice:
                yield _bullet(depth, f"`{choice}`: {meaning(mapping)}")
            yield from self.listed(mapping, path, depth + bool(choice))

    def words(self, node: Schema) -> str:
        """The type of a value, in words."""
        *most, last = dict.fromkeys(self.types(node))
        return f"{', '.join(most)} or {last}" if most else last

    def types(self, node: Schema) -> list[str]:
        """The types that a value may have."""
        node = self.keys.whole(node)
        if "enum" in node or "const" in node:
            return [f"`{_yaml(value)}`" for value in node.get("enum") or [node["const"]]]
        if parts := node.get("anyOf") or node.get("oneOf"):
            return [word for part in parts for word in self.types(part)]
        if inner := node.get("items"):
            return [f"list of {self.words(inner)}"]
        if parts := node.get("prefixItems"):
            return [f"[{', '.join(self.words(part) for part in parts)}]"]
        if isinstance(inner := node.get("additionalProperties"), dict):
            return [f"mapping of names to {self.words(inner)}"]
        bounds = [f"{sign} {node[key]}" for key, sign in _BOUNDS.items() if key in node]
        kind: str = node.get("type", "any value")
        return [f"{_WORDS.get(kind, kind)} {', '.join(bounds)}".strip()]

    def default(self, name: str, mapping: Schema) -> str:
        """The value of a key that is left out."""
        node = mapping["properties"][name]
        if name in mapping.get("required", ()):
            return "required"
        nested = "properties" in self.keys.whole(node)
        return "by default those below" if nested else f"default `{_yaml(node['default'])}`"


def meaning(node: Schema) -> str:
    """The first paragraph of a description, on one line, with Python's None as YAML's null."""
    first = node.get("description", "").split("\n\n")[0]
    return re.sub(r"\bNone\b", "`null`", " ".join(first.split()))


def _yaml(value: object) -> str:
    """A value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return text.removesuffix("\n...\n").strip()


def _bullet(depth: int, text: str) -> str:
    start = "  " * depth
    return textwrap.fill(
        text, _WIDTH, initial_indent=f"{start}- ", subsequent_indent=f"{start}  ", break_on_hyphens=False
    )
