"""Make the README's picture from the last `make demo`, and print its table of the bench from docs/bench/results.json.

`.venv/bin/python docs/figures.py`
"""

import json
from pathlib import Path

from cfx.atlas import Atlas
from cfx.report import panel

ROOT = Path(__file__).parent.parent
ROWS = [0, 1, 2, 3]  # the first rows, not the best ones

FREE = ("gradient-attack", "additive-map", "identity", "random-real")  # one evaluation, of the stability test


def bench_table() -> str:
    """The rows of the README's comparison, depth `typical`."""
    lines = []
    for row in json.loads((ROOT / "docs/bench/results.json").read_text()):
        if row["depth"] != "typical" or row["method"] == "ddim-reconstruction":
            continue
        name = f"**{row['method']}** (ours)" if row["method"] in ("minimal", "morph") else row["method"]
        spent = "0" if row["method"] in FREE else f"{row['nfe_unet_forward']:.0f} + {row['nfe_unet_backward']:.0f}"
        seconds = f"{row['seconds_per_image']:.2f}" if row["seconds_per_image"] else "-"
        figures = [row[k] for k in ("validity", "oracle_validity", "error_to_truth_ratio", "localisation_auprc")]
        lines.append(" | ".join(["", name, str(row["n"]), *(f"{v:.3f}" for v in figures), spent, seconds, ""]).strip())
    return "\n".join(lines)


if __name__ == "__main__":
    print(bench_table())
    atlas = Atlas(ROOT / "runs/demo/atlas.zarr")
    panel(atlas.read(), atlas.read_cohort(), ROWS, ROOT / "docs/demo.png", dpi=110)
