"""Make the README's picture from the last `make demo`: `.venv/bin/python docs/figures.py`."""

from pathlib import Path

from cfx.atlas import Atlas
from cfx.report import panel

ROOT = Path(__file__).parent.parent
ROWS = [0, 1, 2, 3]  # the first rows, not the best ones

if __name__ == "__main__":
    atlas = Atlas(ROOT / "runs/demo/atlas.zarr")
    panel(atlas.read(), atlas.read_cohort(), ROWS, ROOT / "docs/demo.png", dpi=110)
