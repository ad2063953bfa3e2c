"""What benches share whose cells are an atlas each: what is there already, and how far they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from cfx.atlas import Atlas
from cfx.core.errors import AtlasError
from cfx.core.rows import Rows
from cfx.runtime.files import digest

R = TypeVar("R", bound=Rows)


def kept(path: Path, kind: type[R], prints: Mapping[str, str]) -> R | None:
    """The whole cell of this fingerprint at `path`; None if there is none, or a damaged one."""
    try:
        atlas = Atlas(path, kind)
        whole = digest(atlas.attributes["cfx_fingerprint"]) == digest(dict(prints)) and not atlas.missing()
        return atlas.read() if whole else None
    except AtlasError:
        return None


def say(text: str) -> None:
    """Tell how far a bench is."""
    from tqdm.auto import tqdm

    tqdm.write(f"bench: {text}")
