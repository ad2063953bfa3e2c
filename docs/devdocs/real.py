"""Real data for the counterfactual bench, see real.md; run from the repository.

- `labels ../shared/data`: how well linear models tell the labels that OASIS-1 has, by cross-validation over subjects;
- `prepare ../shared/data`: writes `runs/real/{pneumonia,oasis}.npz`, which the configs read;
- `held-out`: the trained classifiers and oracles on the test rows;
- `tables`: the tables of real.md, from what the benches left;
- `copies`: `minimal` with more noisy copies for its gradient, on X-rays that the bench does not show.

Of OASIS-1: axial slices, young (under 40) against old (60 and over), split by subject; rescanned subjects train.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cfx.commands.bench.counterfactual import CounterfactualBench
from cfx.counterfactual import Judge, Minimal, explain
from cfx.counterfactual.metrics import evaluate
from cfx.data import load_cohort
from cfx.models import load
from cfx.runtime.config import read_as

RUNS = Path("runs/real")
BENCHES = {name: f"configs/bench/{name}-counterfactual.yaml" for name in ("pneumonia", "oasis")}
LEVELS = (2, 3, 4)  # of the six axial slices: 20 mm through the lateral ventricles
SHOWN = 3  # the one level that is explained, so that no two test rows share a subject


def prepare(folder: Path) -> None:
    """Write both files with the splits `one` (classifier), `two` (oracle), `train` (generator), reference and test."""
    RUNS.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(RUNS / "pneumonia.npz", **pneumonia(folder))
    np.savez_compressed(RUNS / "oasis.npz", **oasis(folder / "oasis1"))


def pneumonia(folder: Path) -> dict[str, np.ndarray]:
    """The official splits, and the training rows once more in two halves."""
    with np.load(folder / "pneumoniamnist_28_merged.npz", allow_pickle=False) as z:
        arrays = {k: z[k] for k in z.files}
    halves = np.array_split(np.random.default_rng(0).permutation(len(arrays["train_labels"])), 2)
    for name, rows in zip(("one", "two"), halves, strict=True):
        arrays |= {f"{name}_{part}": arrays[f"train_{part}"][rows] for part in ("images", "labels")}
    return arrays


def oasis(folder: Path) -> dict[str, np.ndarray]:
    """Slices of 96 x 96 pixels at 2 mm, 140 and more as white (the 99.9th percentile is 136); labels 0 young, 1 old."""
    axial, ids, table = scans(folder)
    age = {i: float(table[i]["Age"]) for i in ids}
    framed = np.pad(axial, ((0, 0), (0, 0), (0, 0), (3, 2)))[:, :, 6:102]
    images = (framed.clip(0, 140) * (255 / 140)).round().astype(np.uint8)
    arrays: dict[str, np.ndarray] = {}
    for split, rows in subjects(ids, age).items():
        levels = (SHOWN,) if split == "test" else LEVELS
        x = np.concatenate([images[rows, k] for k in levels])
        y = np.tile([int(age[ids[s]] >= 60) for s in rows], len(levels))
        if split not in ("reference", "test"):  # training rows a second time, mirrored
            x, y = np.concatenate([x, x[:, :, ::-1]]), np.tile(y, 2)
        arrays |= {f"{split}_images": x, f"{split}_labels": y}
        print(f"oasis {split}: {len({ids[s][:9] for s in rows})} subjects, {len(x)} rows, {y.mean():.2f} old")
    return arrays


def scans(folder: Path) -> tuple[np.ndarray, list[str], dict[str, dict[str, str]]]:
    """Axial slices (224, 6, 109, 91), the name of every scan, and the table of subjects."""
    with np.load(folder / "slices_2mm_u8.npz", allow_pickle=False) as z, open(folder / "subjects.csv") as file:
        return z["axial"], [str(i) for i in z["ids"]], {row["ID"]: row for row in csv.DictReader(file)}


def subjects(ids: list[str], age: dict[str, float]) -> dict[str, list[int]]:
    """The scans of every split: 32 subjects a class for test, 12 for reference, the others in two halves."""
    draw = np.random.default_rng(0)
    splits: dict[str, list[int]] = {k: [] for k in ("one", "two", "reference", "test")}
    of = {s: [i for i, name in enumerate(ids) if name[:9] == s] for s in sorted({name[:9] for name in ids})}
    for young in (True, False):
        group = [s for s, k in of.items() if (age[ids[k[0]]] < 40 if young else age[ids[k[0]]] >= 60)]
        once = draw.permutation([s for s in group if len(of[s]) == 1]).tolist()
        rest = once[44:] + [s for s in group if len(of[s]) > 1]
        parts = {"test": once[:32], "reference": once[32:44], "one": rest[::2], "two": rest[1::2]}
        for split, names in parts.items():
            splits[split] += [i for s in names for i in of[s]]
    splits["test"] = draw.permutation(splits["test"]).tolist()  # slow methods see the first rows only: of both classes
    return splits | {"train": splits["one"] + splits["two"]}


def labels(folder: Path) -> None:
    """Five-fold cross-validation of kernel ridge regression on the six slices, one scan a subject."""
    axial, ids, table = scans(folder / "oasis1")
    rows = [table[i] for i in ids]
    first = np.array([i.endswith("1") for i in ids])
    age, volume = (np.array([float(r[k]) for r in rows]) for k in ("Age", "nWBV"))
    demented, man = np.array([float(r["CDR"] or 0) > 0 for r in rows]), np.array([r["M/F"] == "M" for r in rows])
    old, apart = age >= 60, (age < 40) | (age >= 60)
    print("| label | n | AUROC | BA | AUROC of the brain volume alone |\n|---|---|---|---|---|")
    for name, those, label in (
        ("CDR > 0, among 60 and over", first & old, demented), ("man", first, man), ("old", first & apart, old),
    ):  # fmt: skip
        y = label[those]
        score = np.stack([folds(axial[those].reshape(len(y), -1) / 255, y, seed) for seed in range(4)])
        mean = [np.mean([f(s, y) for s in score]) for f in (auroc, balanced)]
        alone = auroc(volume[those], y)
        print(f"| {name} | {len(y)} | {mean[0]:.2f} | {mean[1]:.2f} | {max(alone, 1 - alone):.2f} |")


def folds(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Held-out scores, positive for class 1; ridge weight: the mean eigenvalue of the kernel."""
    fold, score = np.empty(len(y), int), np.empty(len(y))
    for k in (False, True):
        rows = np.random.default_rng(seed).permutation(np.flatnonzero(y == k))
        fold[rows] = np.arange(len(rows)) % 5
    for j in range(5):
        own = fold != j
        centred, weight = x[own] - x[own].mean(0), np.sqrt(np.where(y[own], 1 / y[own].mean(), 1 / (~y[own]).mean()))
        kernel = centred @ centred.T
        ridge = np.trace(kernel) / len(kernel) * 2
        system = kernel * weight[:, None] * weight + ridge * np.eye(len(kernel))
        dual = weight * np.linalg.solve(system, weight * np.where(y[own], 1.0, -1.0))
        score[~own] = (x[~own] - x[own].mean(0)) @ (centred.T @ dual)
    return score


def auroc(score: np.ndarray, y: np.ndarray) -> float:
    """Chance that a row of class 1 scores higher than one of class 0."""
    return float((score[y][:, None] > score[~y]).mean())


def balanced(score: np.ndarray, y: np.ndarray) -> float:
    """Mean of sensitivity and specificity at 0."""
    return float(((score[y] > 0).mean() + (score[~y] <= 0).mean()) / 2)


def held_out() -> None:
    """Balanced accuracy and AUROC of every classifier and oracle on all rows of the test split."""
    print("| data | network | n | BA | AUROC |\n|---|---|---|---|---|")
    for name, path in BENCHES.items():
        config = read_as(CounterfactualBench, path, {"data.path": str(RUNS / f"{name}.npz")})
        cohort = load_cohort(config.data)
        y = np.asarray(cohort.y).astype(bool)
        for part in ("classifier", "oracle"):
            logits = Judge(load(getattr(config, part)).eval()).probabilities(cohort.x).log()
            score = (logits[:, 1] - logits[:, 0]).numpy()
            print(f"| {name} | {part} | {len(y)} | {balanced(score, y):.3f} | {auroc(score, y):.3f} |")


def tables() -> None:
    """The essential columns of both benches."""
    names = (
        "oracle_validity",
        "stable",
        "l1",
        "feature_distance",
        "cout",
        "kernel",
        "nfe_unet_forward",
        "nfe_classifier_backward",
    )
    head = "| method | n | valid | oracle agrees | stable | L1 | feature | COUT | kernel | U-Net | gradients |"
    for name in BENCHES:
        rows = json.loads(Path(f"runs/bench-{name}-counterfactual/results.json").read_text())
        for depth in ("typical", "boundary"):
            print(f"\n{name}, depth `{depth}`:\n\n{head}\n|{'---|' * 11}")
            for row in (r for r in rows if r["depth"] == depth and "validity" in r):
                cells = [row["method"], str(row["n"]), number(row, "validity"), *(number(row, k) for k in names)]
                print("| " + " | ".join(cells) + " |")


def copies() -> None:
    """`minimal` at depth `typical` on the test rows 64 to 191 of PneumoniaMNIST."""
    path = str(RUNS / "pneumonia.npz")
    config = read_as(CounterfactualBench, BENCHES["pneumonia"], {"data.path": path, "reference.path": path})
    classifier, generator, oracle = (load(p).eval() for p in (config.classifier, config.generator, config.oracle))
    rows, reference = load_cohort(config.data)[64:192], load_cohort(config.reference)
    print("| copies | valid | oracle agrees | stable | L1 | U-Net | gradients |\n|---|---|---|---|---|---|---|")
    for k in (2, 4, 8):
        method = Minimal(copies=k)
        result = explain(rows, classifier, generator, reference=reference, method=method, oracle=oracle)
        row = {key: float(v) for key, v in evaluate(result, rows).items()}
        keys = ("validity", "oracle_validity", "stable", "l1", "nfe_unet_forward", "nfe_classifier_backward")
        print("| " + " | ".join([str(k), *(number(row, key) for key in keys)]) + " |")


def number(row: dict[str, Any], key: str) -> str:
    """A metric of a row; for the oracle with its interval."""
    if row.get(key) is None:
        return "-"
    text = f"{row[key]:.0f}" if key.startswith("nfe") else f"{row[key]:.3f}" if key == "l1" else f"{row[key]:.2f}"
    low_high = f" [{row[key + '_low']:.2f}, {row[key + '_high']:.2f}]" if key == "oracle_validity" else ""
    return text + low_high


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["labels", folder]:
            labels(Path(folder))
        case ["prepare", folder]:
            prepare(Path(folder))
        case ["held-out"]:
            held_out()
        case ["tables"]:
            tables()
        case ["copies"]:
            copies()
        case _:
            sys.exit(__doc__)
