"""A small kind of result, so that every file of its atlas can be damaged in a test."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.atlas import Atlas
from cfx.core.rows import Rows


@dataclass(frozen=True)
class Small(Rows):
    """Rows of every sort of array.

    Attributes:
        row: Number.
        x: Images.
        values: Numbers by name.
        note: A text.
        title: Of all.
    """

    row: Int[Tensor, " n"]
    x: Float[Tensor, "n c *space"]
    values: Mapping[str, Float[Tensor, " n"]] = field(default_factory=dict)
    note: tuple[str, ...] = ()
    title: str = ""


def small(n: int = 6, seed: int = 0) -> Small:
    g = torch.Generator().manual_seed(seed)
    x, a = torch.rand(n, 1, 3, 4, generator=g), torch.rand(n, generator=g)
    return Small(torch.arange(n), x, {"a": a}, tuple(f"text {seed} {i}" for i in range(n)), "mine")


def created(path: Path, rows: Small, shard: int = 2, **more: object) -> Atlas[Small]:
    return Atlas.create(path, rows[:0], rows=rows.row.tolist(), shard=shard, **more)  # type: ignore[arg-type]


def same(a: Small, b: Small) -> bool:
    """Whether all of two results is the same, bit for bit."""
    parts, others = a.parts(), b.parts()
    equal = [v.equal(others[k]) if isinstance(v, Tensor) else v == others[k] for k, v in parts.items()]
    return parts.keys() == others.keys() and all(equal) and a.plain() == b.plain()
