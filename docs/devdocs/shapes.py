"""How well do shape models describe real brains they have not seen? Principal components against the shape VAE.

`.venv/bin/python docs/devdocs/shapes.py ../shared/data` prints the table of docs/devdocs/shapes.md. Five folds by
subject; each row is the Dice of left-out masks with k numbers a shape, and the paired difference with its 95 %
interval over subjects.
"""

import csv
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from cfx.confounder.shape.pca import Codec, SdfPca
from cfx.confounder.shape.vae import ShapeVae
from cfx.core.distance import signed_distance, solid
from cfx.core.random import permutation
from cfx.core.scores import dice

FOLDS = 5


def distances(path: Path) -> Tensor:
    """Signed distances of packed masks of 2 mm, cut at 4 mm and averaged to cells of 8 mm, in cells."""
    z = np.load(path, allow_pickle=False)
    shape = tuple(z["shape"])
    bits = np.unpackbits(z["packed"], axis=1)[:, : np.prod(shape[1:])].reshape(shape)
    masks = torch.from_numpy(bits)[:, None]
    coarse = torch.stack([avg_pool3d(m.float(), 2, ceil_mode=True) >= 0.5 for m in masks])
    even = [n - n % 2 for n in coarse.shape[2:]]
    coarse = coarse[:, :, : even[0], : even[1], : even[2]]
    return avg_pool3d(signed_distance(solid(coarse)), 2) / 2


def cohorts(folder: Path) -> dict[str, tuple[Tensor, list[str]]]:
    """Signed distances and subjects of both sets; the one failed skull strip is left out."""
    path = folder / "brain_masks_2mm_70.npz"
    meta = json.loads(str(np.load(path, allow_pickle=False)["meta"]))
    good = [k for k, m in enumerate(meta) if (m["dataset"], m["subject"]) != ("LJ-MS-1.5T", "patient19")]
    names = [f"{meta[k]['dataset']}-{meta[k]['subject']}" for k in good]
    rows = list(csv.DictReader((folder / "oasis1" / "subjects.csv").open()))
    oasis = [next(iter(r.values())).rsplit("_MR", 1)[0] for r in rows]  # scans of one subject share a fold
    return {
        "three sources": (distances(path)[good], names),
        "OASIS-1": (distances(folder / "oasis1" / "brainmasks_2mm_packed.npz"), oasis),
    }


def compared(x: Tensor, subjects: list[str], k: int) -> tuple[Tensor, Tensor]:
    """Dice of every mask by models that have not seen its subject: components, VAE."""
    people = sorted(set(subjects))
    order = permutation(len(people), seed=0, stream=0).tolist()
    fold = {people[p]: i % FOLDS for i, p in enumerate(order)}
    of = torch.tensor([fold[s] for s in subjects])
    closed, trained = torch.zeros(len(x)), torch.zeros(len(x))
    for a in range(FOLDS):
        train, test = x[of != a], x[of == a]
        with tempfile.TemporaryDirectory() as folder:
            models: tuple[Codec, Codec] = (SdfPca.fit(train, k), ShapeVae.fit(train, k, Path(folder) / "run"))
        for out, model in zip((closed, trained), models, strict=True):
            out[of == a] = dice(model.decode(model.encode(test)) <= 0, test <= 0).float()
    return closed, trained


def main(folder: Path) -> None:
    """Print the table."""
    print("| masks | k | components | VAE | VAE - components |\n|---|---|---|---|---|", flush=True)
    for name, (x, subjects) in cohorts(folder).items():
        for k in (5, 10, 20, 40):
            closed, trained = compared(x, subjects, k)
            gap = trained - closed
            people = sorted(set(subjects))
            mean = torch.stack([gap[torch.tensor([s == p for s in subjects])].mean() for p in people])
            wide = 1.96 * float(mean.std()) / len(people) ** 0.5
            difference = f"{float(mean.mean()):+.4f} +- {wide:.4f}"
            print(f"| {name}, {len(x)} | {k} | {closed.mean():.4f} | {trained.mean():.4f} | {difference} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
