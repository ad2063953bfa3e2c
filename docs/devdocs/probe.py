"""What brain masks alone know: of their source, and of dementia; and whether the probe's p and intervals hold.

Run from the repository: `.venv/bin/python docs/devdocs/probe.py ../shared/data [--cnn]` prints the tables of probe.md
in about ten minutes on one core; with `--cnn` the last rung as well, which takes half an hour more.
"""

import csv
import json
import sys
from collections.abc import Mapping
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from cfx.confounder.probes.features import RUNGS, Features, features
from cfx.confounder.probes.matching import Matched, matched_probe, matchings
from cfx.confounder.probes.network import Network
from cfx.confounder.probes.probe import ProbeResult, equivalent, gain, probe
from cfx.confounder.probes.probe import pairwise as by_pairs
from cfx.confounder.probes.table import HEAD, comparison
from cfx.core.random import normal
from cfx.core.statistics import Estimate

FAILED = ("LJ-MS-1.5T", "patient19")  # 2431 ml: its skull was not stripped
SOURCES = ("LJ-MS-3T", "LJ-MS-1.5T", "SynthSeg")
OLD, CALIPERS = 60, {"age": 3.0, "sex": 0.0}


def unpacked(file: Mapping[str, np.ndarray]) -> Tensor:
    """Bit-packed masks `(n, 1, *space)`."""
    shape = file["shape"]
    bits = np.unpackbits(file["packed"], axis=1)[:, : int(np.prod(shape[1:]))]
    return torch.from_numpy(bits.reshape(shape).astype(bool))[:, None]


def written(e: Estimate) -> str:
    """Value and interval."""
    return f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]"


def line(*cells: object) -> None:
    """One row of a table."""
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def head(*cells: str) -> None:
    """First rows of a table."""
    print()
    line(*cells)
    line(*["---"] * len(cells))


def row(*first: object, result: ProbeResult) -> None:
    """One probe."""
    cells = [written(result.scores[k]) for k in ("tnr", "tpr", "ba", "auc", "bits")]
    line(*first, result.name, *cells, f"{result.p_value:.3f}")


def read(
    view: Features | Network, target: Tensor, groups: Tensor | None = None, *, permutations: int = 999
) -> ProbeResult:
    """A probe; of a network one cross-validation and 19 permutations."""
    slow = isinstance(view, Network)
    return probe(view, target, groups=groups, repeats=1 if slow else 5, permutations=19 if slow else permutations)


def usual(title: str, lines: list[list[str]]) -> None:
    """Comparisons in the layout in which they are usually printed."""
    print(f"\n{title}")
    head(*HEAD)
    for cells in lines:
        line(*cells)


def sources(folder: Path, cnn: bool) -> None:
    """Three sources, two by two."""
    with np.load(folder / "brain_masks_2mm_70.npz") as file:
        masks, meta = unpacked(file), json.loads(str(file["meta"]))
    name = [next(s for s in SOURCES if m["dataset"].startswith(s)) for m in meta]
    good = torch.tensor([(m["dataset"], m["subject"]) != FAILED for m in meta])
    source = torch.tensor([SOURCES.index(s) for s in name])[good]
    masks = masks[good]
    head("negative", "positive", "n", "rung", "TNR", "TPR", "BA", "AUC", "bits", "p")
    for rung in RUNGS:
        found = by_pairs(features(masks, rung), source)
        for (a, b), result in found.items():
            row(SOURCES[a], SOURCES[b], result.groups, result=result)
    lines = [comparison(SOURCES[a], SOURCES[b], r.scores, r.p_value) for (a, b), r in found.items()]
    usual(f"Sources, by the {RUNGS[-1]} of the mask:", lines)
    for a, b in combinations(range(3), 2) if cnn else ():
        rows = (source == a) | (source == b)
        row(SOURCES[a], SOURCES[b], int(rows.sum()), result=read(Network.of_mask(masks[rows], cells=16), source[rows]))


class Oasis:
    """Masks of OASIS-1 with age, sex, diagnosis and subject."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "oasis1" / "brainmasks_2mm_packed.npz") as file:
            self.masks, ids = unpacked(file), [str(i) for i in file["ids"]]
        with (folder / "oasis1" / "subjects.csv").open() as text:
            rows = {r["ID"]: r for r in csv.DictReader(text)}
        known = [rows[i] for i in ids]
        self.case = torch.tensor([float(r["CDR"]) > 0 for r in known])
        self.age = torch.tensor([float(r["Age"]) for r in known])
        self.sex = torch.tensor([float(r["M/F"] == "F") for r in known])
        self.subject = torch.tensor([int(i.split("_")[1]) for i in ids])
        self.first = torch.tensor([i.endswith("_MR1") for i in ids])

    def views(self) -> list[Features]:
        """Age, which is no view of the mask, and the rungs."""
        return [Features("age", self.age[:, None], standardise=True), *[features(self.masks, rung) for rung in RUNGS]]


def dementia(folder: Path, cnn: bool) -> None:
    """CDR > 0 against CDR 0 among ever more similar people."""
    data = Oasis(folder)
    views = data.views()
    head("controls", "n", "cases", "view", "TNR", "TPR", "BA", "AUC", "bits", "p")
    rungs: dict[str, list[ProbeResult]] = {}
    for who, rows in {"all": data.age > 0, f"from {OLD} years": data.case | (data.age >= OLD)}.items():
        held: list[Features | Network] = [v[rows.nonzero().flatten()] for v in views]
        held += [Network.of_mask(data.masks[rows], cells=16)] if cnn else []
        for v in held:
            result = read(v, data.case[rows], data.subject[rows])
            row(who, result.groups, int(result.held_out.target.sum()), result=result)
            rungs.setdefault(who, []).append(result)
    lines = [comparison(f"CDR 0, {who}", "CDR > 0", r[-1].scores, r[-1].p_value) for who, r in rungs.items()]
    result = matched(data, views)
    lines.append(comparison("CDR 0, matched", "CDR > 0", result.scores, result.p_value))
    usual(f"OASIS-1, by the {RUNGS[-1]} of the mask:", lines)
    head("controls", "rung", "above", "gain in BA")
    for who, results in rungs.items():
        for a, b in pairwise(results[1:]):
            line(who, b.name, a.name, written(gain(b, a)))


def matched(data: Oasis, views: list[Features]) -> Matched:
    """The last step: controls of the same sex and within three years; returns what the last view knows."""
    rows = data.first.nonzero().flatten()
    case, covariates = data.case[rows], {"age": data.age[rows], "sex": data.sex[rows]}
    found = matchings(case, covariates, CALIPERS, n=20)
    for v in views:
        result = matched_probe(v[rows], case, covariates, found)
        cells = [written(result.scores[k]) for k in ("tnr", "tpr", "ba", "auc", "bits")]
        line(f"matched, {len(found)} times", 2 * result.pairs, result.pairs, v.name, *cells, f"{result.p_value:.3f}")
        single = [r.scores["ba"].value for r in result.results]
        ps = sorted(r.p_value for r in result.results)
        print(f"<!-- {v.name}: BA {min(single):.2f} .. {max(single):.2f}, p {ps[0]:.3f} .. {ps[-1]:.3f} -->")
    head("covariate", "standardised difference before", "after, at most")
    for name in covariates:
        line(name, f"{result.before[name]:.2f}", f"{result.after[name]:.2f}")
    return result


def drawn(n: int, columns: int, accuracy: float, seed: int) -> tuple[Features, Tensor]:
    """Columns of which one tells two equally many classes apart, at best with this accuracy."""
    y = torch.arange(n) % 2
    x = normal((columns,), seed=seed, row=torch.arange(n), stream=0)
    x[:, 0] += 2 * float(stats.norm.ppf(accuracy)) * y
    return Features("drawn", x, standardise=True), y


def chance(sets: int = 400) -> None:
    """Simulated data: how often p is at most alpha, and how often the interval of BA holds the best accuracy."""
    head("subjects", "columns", "best BA", "sets", "p <= 0.05", "p <= 0.1", "p <= 0.5", "mean BA", "in 95 % interval")
    for n, columns, best in ((40, 8, 0.5), (100, 8, 0.5), (40, 1, 0.5), (40, 1, 0.8), (100, 1, 0.8)):
        found = [read(*drawn(n, columns, best, 1000 + s), permutations=99) for s in range(sets)]
        p = torch.tensor([r.p_value for r in found])
        ba = [r.scores["ba"] for r in found]
        inside = sum(e.low <= best <= e.high for e in ba) / sets
        low = [f"{float((p <= a + 1e-6).float().mean()):.3f}" for a in (0.05, 0.1, 0.5)]
        line(n, columns, best, sets, *low, f"{sum(e.value for e in ba) / sets:.3f}", f"{inside:.3f}")
    head("subjects", "columns", "best BA", "sets", "called equivalent to chance, margin 0.05")
    for n, best in ((1500, 0.5), (1500, 0.55)):
        called = [equivalent(probe(*drawn(n, 1, best, s), repeats=1, permutations=19)) for s in range(sets // 2)]
        line(n, 1, best, len(called), f"{sum(called) / len(called):.3f}")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    where, cnn = Path(sys.argv[1]), "--cnn" in sys.argv
    chance()
    sources(where, cnn)
    dementia(where, cnn)
