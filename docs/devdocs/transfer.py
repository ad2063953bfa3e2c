"""Shape transfer between real brain masks: overlap, folding, round trip and time of 40 random pairs.

Run from the repository: `.venv/bin/python docs/devdocs/transfer.py ../shared/data`, about six minutes on one core.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from cfx.core import geometry
from cfx.core.distance import plausible_volumes
from cfx.core.registration import match
from cfx.core.scores import dice


def main(folder: Path) -> None:
    """Print one line a pair, then the summary."""
    z = np.load(folder / "brain_masks_2mm_70.npz", allow_pickle=False)
    names = [(m["dataset"], m["subject"]) for m in json.loads(str(z["meta"]))]
    bits = np.unpackbits(z["packed"], axis=1)[:, : np.prod(z["shape"][1:])]
    masks = torch.from_numpy(bits.reshape(-1, 1, *z["shape"][1:]).astype(bool))
    low, high = plausible_volumes(masks)
    volume = masks.flatten(1).sum(1)
    valid = ((volume >= low) & (volume <= high)).tolist()
    print("flagged:", [names[i] for i, ok in enumerate(valid) if not ok])
    rows, draw, found = [i for i, ok in enumerate(valid) if ok], np.random.default_rng(0), []
    for _ in range(40):
        i, j = draw.choice(rows, 2, replace=False)
        a, b = masks[i : i + 1], masks[j : j + 1]
        start = time.process_time()
        v = match(a, b)
        seconds = time.process_time() - start
        u, back = geometry.exponential(v), geometry.exponential(-v)
        there = float(dice(geometry.warp(a.float(), u) >= 0.5, b))
        again = float(dice(geometry.warp(a.float(), geometry.compose(u, back)) >= 0.5, a))
        jacobian = geometry.jacobian_determinant(u)
        found.append((there, again, float(jacobian.min()), float(jacobian.max()), seconds))
        print(" ".join(f"{value:.4f}" for value in found[-1]), flush=True)
    t = torch.tensor(found)
    print(f"Dice mean {t[:, 0].mean():.4f}, worst {t[:, 0].min():.4f}; round trip worst {t[:, 1].min():.4f}")
    print(f"Jacobian {t[:, 2].min():.2f} to {t[:, 3].max():.2f}; CPU seconds mean {t[:, 4].mean():.1f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
