"""What comes with the package: the demo's configuration and networks, in the wheel and in a checkout alike."""

from pathlib import Path

from cfx.runtime.files import resolved

_PACKAGE = Path(__file__).parent.parent
PLACES = (
    _PACKAGE / "shipped",  # in a wheel, see pyproject.toml
    _PACKAGE.parent / "checkpoints",  # in a checkout
    _PACKAGE.parent / "configs" / "explain",
)
"""Where it may lie."""


def located(path: str | Path) -> Path:
    """A path as it is, or, where there is nothing and it is the bare name of something shipped, where that lies."""
    path = resolved(path)
    if path.exists() or len(path.parts) != 1:
        return path
    return next((place / path for place in PLACES if (place / path).exists()), path)


def names() -> list[str]:
    """The networks that are shipped."""
    return sorted({file.parent.name for place in PLACES for file in place.glob("*/cfx.json")})
