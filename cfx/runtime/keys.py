"""What a configuration may say, read from its JSON schema.

pydantic alone decides what is valid; its schema is only *read* here. A value may be a mapping with keys of its own, one
of several such mappings that a constant tells apart (`kind: brain`), or a list of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

Schema = Mapping[str, Any]
Path = Sequence[str | int]


class _WithFactories(GenerateJsonSchema):
    """Schemas that also tell the defaults that a factory makes."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """The schema of a value that has a default."""
        if "default_factory" in schema:
            schema = {**schema, "default": schema["default_factory"]()}  # type: ignore[call-arg]
        return super().default_schema(schema)


class Keys:
    """The keys of a configuration class.

    Attributes:
        root: Its schema.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        """Read the schema of the class."""
        self.root: Schema = model.model_json_schema(schema_generator=_WithFactories)

    def whole(self, node: Schema) -> Schema:
        """A node itself, where it only refers to a definition."""
        name = node.get("$ref", "").removeprefix("#/$defs/")
        return {**node, **self.root["$defs"][name]} if name else node

    def mappings(self, node: Schema) -> list[Schema]:
        """The mappings with keys of their own that a value may be, or hold as a list."""
        node = self.whole(node)
        if "properties" in node:
            return [node]
        inner = [*node.get("anyOf", ()), *node.get("oneOf", ()), node.get("items"), node.get("additionalProperties")]
        return [found for part in inner if isinstance(part, dict) for found in self.mappings(part)]

    def meant(self, node: Schema, value: object) -> Schema | None:
        """Of several mappings, the one whose constants `value` has; None where no choice was made."""
        found = self.mappings(node)
        given = value if isinstance(value, Mapping) else {}
        same = [m for m in found if all(given.get(k, v) == v for k, v in constants(m).items())]
        return same[0] if len(same) == 1 else None

    def node(self, values: object, path: Path) -> Schema:
        """What may stand at a path into values; positions in a list lead to what the list holds."""
        node = self.root
        for depth, part in enumerate(path):
            here = self.meant(node, follow(values, path[:depth]))
            node = here["properties"].get(part, node) if here else node
        return node

    def paths(self, node: Schema | None = None, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        """Every key below a node, as a path; whatever kind is chosen."""
        for mapping in self.mappings(node or self.root):
            for name, part in mapping["properties"].items():
                yield (*above, name)
                yield from self.paths(part, (*above, name))


def constants(mapping: Schema) -> dict[str, Any]:
    """The keys of a mapping that have one value only: what tells it from its alternatives."""
    return {k: v["const"] for k, v in mapping["properties"].items() if "const" in v}


def follow(values: object, path: Path) -> object:
    """What a path leads to in values of mappings and lists; None where it leads nowhere."""
    for part in path:
        values = values[part] if holds(values, part) else None  # type: ignore[index]
    return values


def holds(values: object, part: str | int) -> bool:
    """Whether a mapping has a key, or a list a position."""
    if isinstance(values, (list, tuple)):
        return isinstance(part, int) and part < len(values)
    return isinstance(values, Mapping) and part in values
