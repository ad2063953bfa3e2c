"""The metrics once more, of sets of pixels, in fractions, one pair at a time; and random masks, many of them empty."""

from fractions import Fraction
from itertools import combinations, product

import torch
from torch import Tensor

from cfx.core.random import uniform

Mask = dict[int, frozenset[int]]  # the pixels of each foreground class
CASES = [
    (2, 2, None, (2, 2)),
    (2, 4, None, (3, 3)),
    (4, 2, 2, (4,)),
    (3, 3, 3, (2, 3)),
    (6, 3, None, (2, 2, 2)),
    (4, 4, 4, (3, 2)),
]


def random_masks(n: int, s: int, classes: int | None, space: tuple[int, ...], seed: int) -> Tensor:
    """Masks of all densities, about a third of them empty."""
    row = torch.arange(n)
    u = uniform((s, *space), seed=seed, row=row, stream=0)
    density = uniform((s,), seed=seed, row=row, stream=1).mul(1.5).sub(0.5).clamp(min=0)
    drawn = u < density.reshape(n, s, *[1] * len(space))
    if classes is None:
        return drawn
    kind = 1 + (uniform((s, *space), seed=seed, row=row, stream=2) * (classes - 1)).long()
    return torch.where(drawn, kind, 0)


def sets(masks: Tensor, classes: int | None) -> list[Mask]:
    """The masks of one image."""
    flat = [m.flatten().long().tolist() for m in masks]
    return [{k: frozenset(i for i, v in enumerate(m) if v == k) for k in range(1, classes or 2)} for m in flat]


def over(a: Mask, b: Mask, share) -> Fraction:
    values = [share(a[k], b[k]) for k in a if a[k] or b[k]]
    return sum(values, Fraction(0)) / len(values) if values else Fraction(1)


def iou(a: Mask, b: Mask) -> Fraction:
    return over(a, b, lambda u, v: Fraction(len(u & v), len(u | v)))


def dice(a: Mask, b: Mask) -> Fraction:
    return over(a, b, lambda u, v: Fraction(2 * len(u & v), len(u) + len(v)))


def mean(values) -> Fraction:
    values = list(values)
    return sum(values, Fraction(0)) / len(values)


def within(masks: list[Mask], different: bool) -> Fraction:
    every = range(len(masks))
    return mean(1 - iou(masks[i], masks[j]) for i, j in product(every, every) if not different or i != j)


def ged(s: list[Mask], y: list[Mask], different: bool = False, readers_different: bool = False) -> Fraction:
    return 2 * mean(1 - iou(a, b) for a in s for b in y) - within(s, different) - within(y, readers_different)


def matched(value: list[list[Fraction]]) -> Fraction:
    """Best mean of one-to-one matchings; every set of columns that the first rows may have taken is looked at."""
    best = {frozenset(): Fraction(0)}
    rows = value if len(value) <= len(value[0]) else [list(c) for c in zip(*value, strict=True)]
    for row in rows:
        step: dict[frozenset[int], Fraction] = {}
        for taken, total in best.items():
            for j in set(range(len(row))) - taken:
                key = taken | {j}
                step[key] = max(step.get(key, Fraction(-1)), total + row[j])
        best = step
    return max(best.values()) / len(rows)


def tiled(s: list[Mask], y: list[Mask]) -> Fraction:
    full = next(k for k in range(1, 1000) if k % len(s) == 0 and k % len(y) == 0)
    a, b = s * (full // len(s)), y * (full // len(y))
    return matched([[iou(u, v) for v in b] for u in a])


def sensitivity(s: list[Mask], y: list[Mask]) -> Fraction:
    ours, theirs = ({k: frozenset().union(*(m[k] for m in masks)) for k in masks[0]} for masks in (s, y))
    return over(ours, theirs, lambda u, v: Fraction(len(u & v), len(v)) if v else Fraction(0))


def agreement(s: list[Mask], y: list[Mask]) -> Fraction:
    ours, theirs = ([1 - dice(a, b) for a, b in combinations(masks, 2)] for masks in (s, y))
    return 1 - (abs(max(ours) - max(theirs)) + abs(min(ours) - min(theirs))) / 2


def consensus(s: list[Mask], y: list[Mask], voxels: int) -> Fraction:
    def kind(m: Mask, v: int) -> int:
        return next((k for k in m if v in m[k]), 0)

    agreed = {v: kind(y[0], v) for v in range(voxels) if len({kind(m, v) for m in y}) == 1}
    most = {v: max(range(len(s[0]) + 1), key=lambda k: (sum(kind(m, v) == k for m in s), k)) for v in agreed}
    ours, theirs = ({k: frozenset(v for v in of if of[v] == k) for k in s[0]} for of in (most, agreed))
    return dice(ours, theirs)


def crps(s: list[Mask], y: list[Mask]) -> Fraction:
    def one(k: int, reader: Mask) -> Fraction:
        v = [len(m[k]) for m in s]
        off = mean(Fraction(abs(a - len(reader[k]))) for a in v)
        return off - mean(Fraction(abs(a - b)) for a in v for b in v) / 2

    return mean(one(k, reader) for k in s[0] for reader in y)


def correlation(s: list[Mask], y: list[Mask], voxels: int) -> float:
    """By the definition: cross-entropies with probabilities cut off at e^-9 (any cut-off gives the same)."""

    def entropy(p: dict[int, Fraction], m: Mask, v: int) -> float:
        own = next((k for k in m if v in m[k]), 0)
        return 9 * float(1 - p[own])

    def shares(masks: list[Mask], v: int) -> dict[int, Fraction]:
        p = {k: mean(Fraction(v in m[k]) for m in masks) for k in masks[0]}
        return p | {0: 1 - sum(p.values())}

    uncertain = [mean_float(entropy(shares(s, v), m, v) for m in s) for v in range(voxels)]
    errors = [[mean_float(entropy(shares([r], v), m, v) for m in s) for v in range(voxels)] for r in y]
    return mean_float(_pearson(uncertain, e) for e in errors)


def mean_float(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def _pearson(a: list[float], b: list[float]) -> float:
    flat = [max(m) - min(m) < 1e-9 for m in (a, b)]
    if any(flat):
        return float(all(flat))
    u, w = ([x - mean_float(m) for x in m] for m in (a, b))
    up = sum(x * y for x, y in zip(u, w, strict=True))
    return up / (sum(x * x for x in u) * sum(y * y for y in w)) ** 0.5
