"""One finished measurement: an atlas of the results, which also says what they cost, and an atlas of the laws.

An atlas keeps a fingerprint of everything that could change its rows, and every byte is checked when it is read; so a
bench that was interrupted finds what is whole and still meant, and goes on within a method.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from cfx.atlas import Atlas, write_atlas
from cfx.core.errors import AtlasError
from cfx.counterfactual.metrics import Measurements
from cfx.counterfactual.result import Counterfactuals


@dataclass(frozen=True)
class Cell:
    """A method at one depth.

    Attributes:
        result: Its counterfactuals.
        cost: What the bench measured around it: `peak_memory_mb` and, beside the first method, `ddim_seconds` (an
            image) and `ddim_nfe`; None where the machine cannot tell.
        hardware: Where it was measured.
        laws: One number a row for each law of `cfx.counterfactual.metrics.consistency` that was measured.
    """

    result: Counterfactuals
    cost: Mapping[str, float | None]
    hardware: str
    laws: Mapping[str, Tensor] = field(default_factory=dict)


def laws_path(path: Path) -> Path:
    """Where the laws of an atlas of results are kept: beside it."""
    return path.with_name(f"{path.stem}-laws.zarr")


def finish(path: Path, cell: Cell, fingerprint: Mapping[str, str]) -> None:
    """Write what belongs to the finished results at `path`: the laws, and last the cost, which vouches for all."""
    if cell.laws:
        laws = Measurements(cell.result.row, cell.laws)
        write_atlas(laws_path(path), laws, fingerprint=fingerprint, exists="overwrite")
    Atlas(path, Counterfactuals).note(cost=dict(cell.cost), hardware=cell.hardware)


def kept(path: Path, fingerprint: Mapping[str, str]) -> Cell | None:
    """The finished measurement of this fingerprint at `path`; None if there is none, or a damaged one."""
    try:
        atlas = Atlas(path, Counterfactuals)
        about = atlas.attributes
        if about["cfx_fingerprint"] != dict(fingerprint) or atlas.missing() or "cost" not in about:
            return None
        beside = laws_path(path)
        laws = Atlas(beside, Measurements).read().values if beside.exists() else {}
        return Cell(atlas.read(), about["cost"], about["hardware"], laws)
    except AtlasError:
        return None


def begun(path: Path, fingerprint: Mapping[str, str]) -> bool:
    """Whether an interrupted measurement of this fingerprint is at `path`; a finished one that is damaged is not."""
    try:
        about = Atlas(path, Counterfactuals).attributes
        return bool(about["cfx_fingerprint"] == dict(fingerprint)) and "cost" not in about
    except AtlasError:
        return False
