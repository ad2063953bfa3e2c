"""Shape transfer between real brain masks: overlap, folding, round trip and time, both ways of 20 random pairs.

And of the failed skull strip with a brain of each source, apart from the summary.

Run from the repository: `.venv/bin/python docs/devdocs/transfer.py ../shared/data`, about four minutes on one core.
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
    flagged, rows = [i for i, ok in enumerate(valid) if not ok], [i for i, ok in enumerate(valid) if ok]
    print("flagged:", [names[i] for i in flagged])
    draw = np.random.default_rng(0)
    pairs = [draw.choice(rows, 2, replace=False).tolist() for _ in range(20)]
    first = [next(i for i in rows if names[i][0] == source) for source in sorted({name for name, _ in names})]
    match(masks[:1], masks[1:2])  # the first call of a process is slower
    found = [_measure(masks, names, *way) for pair in pairs for way in (pair, pair[::-1])]
    t = torch.tensor(found)
    print(f"Dice mean {t[:, 0].mean():.4f}, worst {t[:, 0].min():.4f}; round trip worst {t[:, 1].min():.4f}")
    print(f"Jacobian {t[:, 2].min():.2f} to {t[:, 3].max():.2f}")
    print(f"CPU seconds mean {t[:, 4].mean():.1f}, most {t[:, 4].max():.1f}")
    for pair in [(flag, other) for flag in flagged for other in first]:
        for way in (pair, pair[::-1]):
            _measure(masks, names, *way)


def _measure(masks: torch.Tensor, names: list[tuple[str, str]], i: int, j: int) -> tuple[float, ...]:
    """Dice, round-trip Dice, least and largest Jacobian, CPU seconds of mask i in the shape of j."""
    a, b = masks[i : i + 1], masks[j : j + 1]
    start = time.process_time()
    v = match(a, b)
    seconds = time.process_time() - start
    u, back = geometry.exponential(v), geometry.exponential(-v)
    there = float(dice(geometry.warp(a.float(), u) >= 0.5, b))
    again = float(dice(geometry.warp(a.float(), geometry.compose(u, back)) >= 0.5, a))
    jacobian = geometry.jacobian_determinant(u)
    found = (there, again, float(jacobian.min()), float(jacobian.max()), seconds)
    print(" ".join(f"{value:.4f}" for value in found), *names[i], "to", *names[j], flush=True)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
