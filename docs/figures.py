"""`make figures`: the README's picture and `docs/demo.json` from the last `cfx demo`, then the tables of its pages.

On a page each table stands between two comments, `<!-- figures: NAME -->` and `<!-- end -->`; a test holds them to
what is committed here:

- `demo`: docs/demo.json, the `summary.json` of `cfx demo` without what depends on the machine;
- `bench typical`: docs/bench/results.json, of `cfx bench counterfactual configs/bench/brain64-counterfactual.yaml`;
- `bench boundary`: docs/bench/boundary.json, of `cfx bench counterfactual configs/bench/brain64-boundary.yaml`;
- `tuning`: docs/bench/tuning.json, of `cfx bench tuning`;
- `planted`: docs/bench/planted.md, of `cfx bench planted`;
- `ood brain64`, `ood fashion`: docs/bench/ood-*.json, the `results.json` of `cfx bench ood configs/bench/*-ood.yaml`;
- `segmentation lidc64`: docs/bench/segmentation-lidc64.json, of `cfx bench segmentation
  configs/bench/lidc64-segmentation.yaml`; `segmentation brain64`: of configs/bench/brain64-readers.yaml, likewise;
- `audit`: docs/audit/*.json, each the `summary.json` of one `cfx audit`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/methods.md", "docs/audit.md", "docs/ood.md", "docs/segmentation.md")
ROWS = [0, 1, 2, 3]  # the first rows, not the best ones

FREE = ("gradient-attack", "additive-map")  # one evaluation, of the stability test
REFERENCES = ("identity", "random-real")
OURS = ("minimal", "minimal-unlabelled", "morph")
SHOWN = {
    "typical": {
        "flipped": "flip_rate",
        "valid": "validity",
        "oracle agrees": "oracle_validity",
        "error to truth / no edit": "error_to_truth_ratio",
        "AUPRC": "localisation_auprc",
    },
    "boundary": {"valid": "validity", "oracle agrees": "oracle_validity", "L1": "l1", "LPIPS": "lpips"},
}
DEMO = {
    "validity ({n:.0f} of {n:.0f} rows counted)": "{validity:.2f}",
    "oracle validity": "{oracle_validity:.2f}{oracle_validity_span}",
    "stable under re-noising": "{stable:.2f}",
    "L1": "{l1:.2g}",
    "share of the change that the classifier reads": "{read_share:.2f}",
    "error to the true counterfactual (no edit: {error_to_truth_no_edit:.3f})": "{error_to_truth:.3f}",
    "ratio to no edit": "{error_to_truth_ratio:.2f}{error_to_truth_ratio_span}",
    "localisation AUPRC (base rate {localisation_base_rate:.3f})": "{localisation_auprc:.2f}",
    "U-Net evaluations an image, search included (most)": "{nfe_unet_forward:.1f} ({nfe_unet_forward_max:.0f})",
}


Cells = list[list[str]]


def demo() -> Cells:
    """What `make demo` finds at both depths."""
    found = json.loads((ROOT / "docs/demo.json").read_text())
    inner = {k.removeprefix("boundary_"): v for k, v in found.items() if k.startswith("boundary_")}
    depths = [values | _spans(values) for values in (found, inner)]
    rows = [[name.format(**depths[0]), *(text.format(**d) for d in depths)] for name, text in DEMO.items()]
    return [["", "`typical`", "`boundary`"], *rows]


def _spans(values: Mapping[str, float]) -> dict[str, str]:
    """Intervals as text, empty where there is no width."""
    ends = {k.removesuffix("_low"): (v, values[k[:-3] + "high"]) for k, v in values.items() if k.endswith("_low")}
    return {f"{k}_span": f" [{low:.2f}, {high:.2f}]" if high > low else "" for k, (low, high) in ends.items()}


def bench(depth: str) -> Cells:
    """The comparison of methods at a depth."""
    file = "results" if depth == "typical" else "boundary"
    rows = [r for r in json.loads((ROOT / f"docs/bench/{file}.json").read_text()) if r["depth"] == depth]
    cost = ["spent to a flip", "to the margin", "failing"] if depth == "typical" else ["U-Net evaluations + gradients"]
    head = ["method", "n", *(["start sigma"] if depth == "typical" else []), *SHOWN[depth], *cost]
    return [head, *(_method(row, depth) for row in rows if row["method"] != "ddim-reconstruction")]


def _method(row: Mapping[str, Any], depth: str) -> list[str]:
    """One method's cells."""
    name = row["method"]
    figures = [_said(row.get(k), ".4f" if k in ("l1", "lpips") else ".3f") for k in SHOWN[depth].values()]
    if name in REFERENCES:
        cost = ["-"] * (3 if depth == "typical" else 1)
    elif name.removesuffix("-tuned") in FREE:
        cost = ["0"] * (3 if depth == "typical" else 1)
    elif depth == "typical":
        cost = [_said(row.get(k), ".0f") for k in ("nfe_to_flip", "nfe_to_margin", "nfe_failing")]
    else:
        cost = [f"{row['nfe_unet_forward']:.0f} + {row['nfe_unet_backward']:.0f}"]
    start = [_said(row.get("start_sigma"), ".3f")] if depth == "typical" else []
    said = f"**{name}** (ours)" if name.removesuffix("-tuned") in OURS else name
    return [said, str(row["n"]), *start, *figures, *cost]


def _said(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def tuning() -> Cells:
    """What was chosen for every method, and what it reached on the development images."""
    found = json.loads((ROOT / "docs/bench/tuning.json").read_text())["chosen"]
    head = ["method", "images", "chosen", "valid", "error to truth / no edit", "evaluations + gradients"]
    rows = [
        [key, str(f["n"]), ", ".join(f"{k} {v}" for k, v in f["settings"].items()) or "as published",
         f"{f['validity']:.2f}", f"{f['error_to_truth_ratio']:.3f}", f"{f['nfe']:.0f}"]
        for key, f in found.items()
    ]  # fmt: skip
    return [head, *rows]


def planted() -> Cells:
    """Whether edits show planted factors: the table of docs/bench/planted.md."""
    lines = (ROOT / "docs/bench/planted.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [rows[0], *rows[2:]]


def audit() -> Cells:
    """The audits of planted confounders, each with the confounding and without."""
    head = ["audit", "planted: equal to the label in", "effect of the other class's confounder (logits)", "margin"]
    head += ["round trip", "accuracy, own to other", "verdict"]
    return [head, *(_audited(kind, q) for kind in ("shape", "tag", "implant", "ruler") for q in (90, 50))]


def _audited(kind: str, q: int) -> list[str]:
    """One audit's cells."""
    r = json.loads((ROOT / f"docs/audit/brain64-{kind}-q{q}.json").read_text())
    effect = f"{r['effect']:+.2f} [{r['effect_low']:+.2f}, {r['effect_high']:+.2f}]"
    lost = f"{r['ba_same']:.2f} to {r['ba_opposite']:.2f}"
    return [kind, f"{q} %", effect, f"{r['margin']:.2f}", f"{r['round_trip_arm']:+.3f}", lost, f"**{r['verdict']}**"]


def ood(file: str) -> Cells:
    """Detectors of out-of-distribution images: `brain64` on the ladder, `fashion` on sets of photographs."""
    rows = json.loads((ROOT / f"docs/bench/ood-{file}.json").read_text())
    means = {"near": "auroc_near", "worst": "auroc_near_min", "FPR95": "fpr95_near"}
    means |= {"beyond": "auroc_beyond", "worst beyond": "auroc_beyond_min"} if file == "brain64" else {}
    means |= {"far": "auroc_far"}
    means |= {"false alarms, tolerated": "false_alarm_tolerated"} if file == "brain64" else {}
    means |= {"false alarms": "false_alarm"}
    maps = ["map AUPRC"] if file == "brain64" else ["digits"]
    head = ["detector", "n", *means, *maps, "U-Net evaluations"]
    return [head, *(_detector(row, list(means.values()), maps[0]) for row in rows if "error" not in row)]


def _detector(row: Mapping[str, Any], means: Sequence[str], last: str) -> list[str]:
    """One detector's cells."""
    name, own = row["method"], row.get("map_auprc") if last == "map AUPRC" else row["shift.digits.auroc"]
    said = f"**{name}** (ours)" if name in ("denoising", "denoising-once", "cascade") else name
    near = _said(row["auroc_near"], ".3f")
    if row.get("auroc_near_low") is not None:
        near += f" [{row['auroc_near_low']:.3f}, {row['auroc_near_high']:.3f}]"
    figures = [_said(row.get(k), ".3f") for k in means[1:]]
    return [said, str(row["n"]), near, *figures, _said(own, ".3f"), _said(row["nfe_unet_forward"], ".3g")]


def masks() -> Cells:
    """Networks that draw masks, on real readers of lung lesions; intervals of the figure that needs no number."""
    rows = json.loads((ROOT / "docs/bench/segmentation-lidc64.json").read_text())
    figures = {"GED_4": "ged_4", "GED_16": "ged_16", "CI_4": "ci_4", "D_max_4": "d_max_4", "HM-IoU_16": "hm_iou_16"}
    head = ["method", "n", "steps", "GED debiased", *figures, "diversity / readers'", "evaluations a mask", "masks / s"]
    return [head, *(_sampler(row, list(figures.values())) for row in rows if "error" not in row)]


def _sampler(row: Mapping[str, Any], figures: Sequence[str]) -> list[str]:
    """One sampler's cells."""
    cost = [_said(row.get(key), ".3g") for key in ("nfe_unet_forward", "samples_per_second")]
    figure = [_said(row.get(key), ".3f") for key in figures]
    told = [_said(row.get("train_steps"), ".0f"), _spread(row, "ged_debiased", ".3f")]
    return [_mine(row), str(row["n"]), *told, *figure, _said(row.get("diversity_ratio"), ".2f"), *cost]


def _mine(row: Mapping[str, Any]) -> str:
    """Name of a sampler, ours told."""
    return f"**{row['method']}** (ours)" if row["method"] == "energy" else str(row["method"])


def _spread(row: Mapping[str, Any], key: str, form: str) -> str:
    """A figure with its interval, where there is one."""
    ends = [row.get(f"{key}_{end}") for end in ("low", "high")]
    return _said(row.get(key), form) + (f" [{ends[0]:{form}}, {ends[1]:{form}}]" if ends[0] is not None else "")


def known_masks() -> Cells:
    """Samplers against a known distribution: times as far as equally many true masks, and empty masks."""
    rows = json.loads((ROOT / "docs/bench/segmentation-brain64.json").read_text())
    some = [n for n in (4, 16, 50) if any(f"truth_ratio_{n}" in row for row in rows)]
    head = ["method", "n", "GED to the truth", *(f"{n} samples / {n} true masks" for n in some), "empty ECE"]
    return [
        head,
        *(
            [_mine(row), str(row["n"]), _spread(row, "truth_ged", ".4f"),
             *(_spread(row, f"truth_ratio_{n}", ".2f") for n in some), _said(row["empty_ece"], ".3f")]
            for row in rows if "error" not in row
        ),
    ]  # fmt: skip


TABLES: dict[str, Callable[[], Cells]] = {
    "demo": demo,
    "bench typical": partial(bench, "typical"),
    "bench boundary": partial(bench, "boundary"),
    "tuning": tuning,
    "planted": planted,
    "audit": audit,
    "ood brain64": partial(ood, "brain64"),
    "ood fashion": partial(ood, "fashion"),
    "segmentation lidc64": masks,
    "segmentation brain64": known_masks,
}


def filled(text: str) -> str:
    """A page with every marked table made anew."""

    def table(match: re.Match[str]) -> str:
        head, *rows = TABLES[match[1]]()
        lines = [_line(head), "|---" * len(head) + "|", *map(_line, rows)]
        return "\n".join([f"<!-- figures: {match[1]} -->", *lines, "<!-- end -->"])

    return re.sub(r"<!-- figures: ([\w ]+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def _line(cells: Sequence[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Keep the last demo's summary and picture, and fill the pages."""
    from cfx.atlas import Atlas
    from cfx.report import panel

    run = ROOT / "runs/demo"
    kept = {k: v for k, v in json.loads((run / "summary.json").read_text()).items() if "seconds" not in k}
    (ROOT / "docs/demo.json").write_text(json.dumps(kept, indent=2) + "\n")
    atlas = Atlas(run / "atlas.zarr")
    panel(atlas.read(), atlas.read_cohort(), ROWS, ROOT / "docs/demo.png", dpi=110)
    for page in (ROOT / name for name in PAGES):
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
