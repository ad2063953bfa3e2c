"""The audit of real brains, see ../audit/real.md; run from the repository.

- `prepare ../shared/data`: writes `runs/audit/real/<question>.npz`, split by subject into `train` and `test`;
- `train QUESTION`: six networks of one question, on one core;
- `judge QUESTION`: their audit, printed as a row of the table; the figures go to `docs/audit/real-<question>.json`;
- `table`: the tables of real.md from these.

The questions: `age-slices`, `age-volumes` (under 40 against 60 and over), `dementia-slices`, `dementia-volumes` (CDR 0
against more, from 60 years). OASIS-1 may be used for research and not be passed on: nothing but figures is committed.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cfx.confounder.audit import audit
from cfx.confounder.intervention import measure
from cfx.confounder.plan import Plan
from cfx.confounder.reliance import decide
from cfx.confounder.swap import ShapeSwap
from cfx.core.cohort import Cohort
from cfx.training.config import TrainConfig, check_config
from cfx.training.repeats import train_seeds

RUNS = Path("runs/audit/real")
OUT = Path("docs/audit")
SEEDS = 6
LEVELS, SHOWN = (2, 3, 4), 3  # axial slices that are learned from, and the one that is tested
QUESTIONS = [f"{what}-{form}" for what in ("age", "dementia") for form in ("slices", "volumes")]
NETWORKS: dict[str, dict[str, Any]] = {
    "slices": {
        "network": {"name": "cnn", "channels": [16, 32, 48, 64]},
        "objective": {"kind": "classifier", "label_smoothing": 0.02, "shift": 3, "noise": 0.05},
        "batch_size": 32,
        "steps": 300,
    },
    "volumes": {
        "network": {"name": "cnn", "channels": [8, 16, 24, 32]},
        "objective": {"kind": "classifier", "label_smoothing": 0.02, "shift": 2, "noise": 0.05},
        "batch_size": 16,
        "steps": 200,
    },
}


def main(command: str, *words: str) -> None:
    """Run one command."""
    {"prepare": prepare, "train": train, "judge": judge, "table": table}[command](*words)


def prepare(folder: str) -> None:
    """Write the splits of every question."""
    RUNS.mkdir(parents=True, exist_ok=True)
    root = Path(folder) / "oasis1"
    with (root / "subjects.csv").open() as file:
        known = {row["ID"]: row for row in csv.DictReader(file)}
    with np.load(root / "slices_2mm_u8.npz") as z, np.load(root / "volumes_4mm_u8.npz") as v:
        axial, levels, volumes, ids = z["axial"], z["axial_k"], v["vol"], [str(i) for i in z["ids"]]
    with np.load(root / "brainmasks_2mm_packed.npz") as z:
        shape = tuple(z["shape"])
        masks = np.unpackbits(z["packed"], axis=1)[:, : np.prod(shape[1:])].reshape(shape).astype(bool)
    forms = {"slices": slices(axial, masks, levels), "volumes": volumes_of(volumes, masks)}
    for question in QUESTIONS:
        what, form = question.split("-")
        label = labels(what, [known[i] for i in ids])
        splits = halves(ids, label)
        arrays = {}
        for split, rows in splits.items():
            images, brains = forms[form]
            many = split == "train" and form == "slices"
            chosen = LEVELS if many else (SHOWN,) if form == "slices" else (0,)
            x, m = (np.concatenate([a[rows, k] for k in chosen]) for a in (images, brains))
            y = np.tile(label[rows], len(chosen))
            age = np.tile([float(known[ids[i]]["Age"]) for i in rows], len(chosen))
            sex = np.tile([int(known[ids[i]]["M/F"] == "M") for i in rows], len(chosen))
            if split == "train":  # once more, mirrored
                x, m = (np.concatenate([a, a[..., ::-1] if form == "slices" else a[:, ::-1]]) for a in (x, m))
                y, age, sex = (np.tile(a, 2) for a in (y, age, sex))
            arrays |= {f"{split}_images": x, f"{split}_masks": m, f"{split}_labels": y}
            arrays |= {f"{split}_age": age, f"{split}_sex": sex}
            print(f"{question} {split}: {len(rows)} subjects or scans, {len(x)} rows, {y.mean():.2f} of class 1")
        np.savez_compressed(RUNS / f"{question}.npz", **arrays)


def labels(what: str, rows: list[dict[str, str]]) -> np.ndarray:
    """Class of every scan; -1 takes no part."""
    age = np.array([float(r["Age"]) for r in rows])
    if what == "age":
        return np.where(age < 40, 0, np.where(age >= 60, 1, -1))
    case = np.array([float(r["CDR"] or 0) > 0 for r in rows])
    return np.where(age >= 60, case.astype(int), -1)


def halves(ids: list[str], label: np.ndarray) -> dict[str, list[int]]:
    """Half of the subjects of each class to train, half to test; of a subject scanned twice both scans train."""
    draw = np.random.default_rng(0)
    splits: dict[str, list[int]] = {"train": [], "test": []}
    scans: dict[str, list[int]] = {}
    for i, name in enumerate(ids):
        if label[i] >= 0:
            scans.setdefault(name[:9], []).append(i)
    for k in (0, 1):
        once = [s for s, rows in scans.items() if label[rows[0]] == k and len(rows) == 1]
        twice = [s for s, rows in scans.items() if label[rows[0]] == k and len(rows) > 1]
        once = draw.permutation(once).tolist()
        cut = (len(once) + len(twice)) // 2
        parts = {"test": once[:cut], "train": once[cut:] + twice}
        for split, names in parts.items():
            splits[split] += [i for s in names for i in scans[s]]
    return splits


def slices(axial: np.ndarray, masks: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Axial slices `(n, level, 96, 96)` at 2 mm, and their brains."""
    brains = masks[..., levels].transpose(0, 3, 2, 1)[:, :, ::-1]
    images, brains = (np.pad(a, ((0, 0), (0, 0), (0, 0), (3, 2)))[:, :, 6:102] for a in (axial, brains))
    return (images.clip(0, 140) * (255 / 140)).round().astype(np.uint8), brains


def volumes_of(volumes: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Volumes `(n, 1, 48, 56, 48)` at 4 mm, and their brains: cells that are brain for the greater part."""
    n = len(volumes)
    cells = np.pad(masks, ((0, 0), (0, 1), (0, 1), (0, 1))).reshape(n, 46, 2, 55, 2, 46, 2).mean((2, 4, 6)) >= 0.5
    around = ((0, 0), (0, 0), (1, 1), (1, 0), (1, 1))
    images, brains = (np.pad(a[:, None], around) for a in (volumes, cells))
    return (images.clip(0, 140) * (255 / 140)).round().astype(np.uint8), brains


def cohort(question: str, split: str) -> Cohort:
    """A split as a cohort."""
    with np.load(RUNS / f"{question}.npz") as z:
        x, m, y, age, sex = (z[f"{split}_{k}"] for k in ("images", "masks", "labels", "age", "sex"))
    images = torch.from_numpy(x).float()[:, None] / 127.5 - 1
    covariates = {"age": torch.from_numpy(age).float(), "sex": torch.from_numpy(sex).long()}
    names = ["young", "old"] if question.startswith("age") else ["CDR 0", "CDR > 0"]
    mask = torch.from_numpy(m)[:, None]
    return Cohort(images, torch.from_numpy(y).long(), mask=mask, covariates=covariates, classes=names)


def how(question: str) -> TrainConfig:
    """How the networks of a question are trained."""
    common = {"optimizer": {"lr": 2e-3, "warmup": 30, "cosine": True}, "ema": 0.98, "validation": 0.0}
    values = {"name": question, "out": str(RUNS / question), "save_every": 1000} | common
    return check_config(values | NETWORKS[question.split("-")[1]])


def train(question: str) -> None:
    """Train the networks, and say how well they do on the test rows."""
    networks = train_seeds(how(question), SEEDS, cohort(question, "train"))
    test = cohort(question, "test")
    for k, network in enumerate(networks):
        with torch.no_grad():
            right = network(test.x).argmax(1) == test.y
        print(k, " ".join(f"{float(right[test.y == j].float().mean()):.3f}" for j in (0, 1)), flush=True)


def judge(question: str) -> None:
    """The audit of one question: its verdict, and all figures for the page."""
    test = cohort(question, "test")
    networks = train_seeds(how(question), SEEDS, cohort(question, "train"))
    if question.endswith("slices"):
        found = audit(networks, test, Plan(confounder="shape", role="mediator", seeds=SEEDS))
        reliance, summary = found.reliance, found.summary()
    else:  # the test alone: what it costs is the matching of shapes
        plan = Plan(confounder="shape", role="mediator", seeds=SEEDS, doses=())
        scores = measure(networks, ShapeSwap.of(test, test), batch_size=8)
        reliance = decide(scores, plan)
        summary = reliance.summary()
    (OUT / f"real-{question}.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    print(reliance.sentence)


def table() -> None:
    """The tables of the page, from the figures of every question that has been judged."""
    found = {q: json.loads(path.read_text()) for q in QUESTIONS if (path := OUT / f"real-{q}.json").exists()}
    print("| question | n | BA | effect | control | effect less control | margin | BA, own to other shape | verdict |")
    print("|---|---|---|---|---|---|---|---|---|")
    for question, r in found.items():
        cells = [question.replace("-", ", "), str(r["n"]), interval(r, "competence", 2)]
        cells += [interval(r, key, 2) for key in ("effect", "control_effect", "net_effect")]
        cells += [f"{r['margin']:.2f}", f"{r['ba_same']:.3f} to {r['ba_opposite']:.3f}", f"**{r['verdict']}**"]
        print("| " + " | ".join(cells) + " |")
    arms = ("identity", "round_trip", "round_trip_same", "same", "opposite", "random", "normalised")
    print("\n| question | " + " | ".join(name.replace("_", " ") for name in arms) + " | gradient energy kept |")
    print("|---" * (len(arms) + 2) + "|")
    for question, r in found.items():
        cells = [interval(r, f"{name}_arm", 3) for name in arms]
        print("| " + " | ".join([question.replace("-", ", "), *cells, f"{r['blur_opposite']:.2f}"]) + " |")


def interval(r: dict[str, Any], key: str, places: int) -> str:
    """A figure with its interval."""
    value, low, high = (r[key], r[f"{key}_low"], r[f"{key}_high"])
    sign = "" if key == "competence" else "+"
    return f"{value:{sign}.{places}f} [{low:{sign}.{places}f}, {high:{sign}.{places}f}]"


if __name__ == "__main__":
    main(*sys.argv[1:])
