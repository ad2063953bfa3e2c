"""Make the README's picture from the last `make demo`, and print its tables from docs/bench and docs/audit.

Each file of docs/audit is the `summary.json` of `cfx audit configs/audit/<its name>.yaml`.

`.venv/bin/python docs/figures.py`
"""

import json
from pathlib import Path

from cfx.atlas import Atlas
from cfx.report import panel

ROOT = Path(__file__).parent.parent
ROWS = [0, 1, 2, 3]  # the first rows, not the best ones

FREE = ("gradient-attack", "additive-map", "identity", "random-real")  # one evaluation, of the stability test
SHOWN = {
    "typical": ("validity", "oracle_validity", "error_to_truth_ratio", "localisation_auprc"),
    "boundary": ("validity", "oracle_validity", "l1", "lpips"),
}


def bench_table(depth: str) -> str:
    """The rows of the README's comparison at a depth."""
    lines = []
    for row in json.loads((ROOT / "docs/bench/results.json").read_text()):
        if row["depth"] != depth or row["method"] == "ddim-reconstruction":
            continue
        name = f"**{row['method']}** (ours)" if row["method"] in ("minimal", "morph") else row["method"]
        spent = "0" if row["method"] in FREE else f"{row['nfe_unet_forward']:.0f} + {row['nfe_unet_backward']:.0f}"
        seconds = f"{row['seconds_per_image']:.2f}" if row["seconds_per_image"] else "-"
        figures = [f"{row[k]:.{4 if k in ('l1', 'lpips') else 3}f}" for k in SHOWN[depth]]
        lines.append(" | ".join(["", name, str(row["n"]), *figures, spent, seconds, ""]).strip())
    return "\n".join(lines)


def audit_table() -> str:
    """The rows of the README's audits."""
    lines = []
    for kind in ("shape", "tag", "implant", "ruler"):
        for q in (90, 50):
            r = json.loads((ROOT / f"docs/audit/brain64-{kind}-q{q}.json").read_text())
            effect = f"{r['effect']:+.2f} [{r['effect_low']:+.2f}, {r['effect_high']:+.2f}]"
            lost = f"{r['ba_same']:.2f} to {r['ba_opposite']:.2f}"
            trip = f"{r['round_trip_arm']:+.3f}"
            cells = [kind, f"{q} %", effect, f"{r['margin']:.2f}", trip, lost, f"**{r['verdict']}**"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(bench_table("typical"), bench_table("boundary"), audit_table(), sep="\n\n")
    atlas = Atlas(ROOT / "runs/demo/atlas.zarr")
    panel(atlas.read(), atlas.read_cohort(), ROWS, ROOT / "docs/demo.png", dpi=110)
