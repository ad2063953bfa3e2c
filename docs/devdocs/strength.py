"""The strength that `minimal` finds at depth `boundary` against brute force, see strength.md.

Run from the repository:

    python docs/devdocs/strength.py configs/bench/brain64-counterfactual.yaml 64

takes the first images, the classifier, the generator and the reference of a bench, and tries every strength of a grid.
"""

import sys

import torch

from cfx.commands.bench.counterfactual import CounterfactualBench
from cfx.counterfactual import Judge, explain
from cfx.counterfactual.guidance import Guided
from cfx.counterfactual.method import Meter, Problem
from cfx.counterfactual.minimal import Minimal
from cfx.counterfactual.shrink import paste, shrink
from cfx.data import load_cohort
from cfx.models import load
from cfx.models.goal import Goal
from cfx.runtime.config import read_as

STEP = 1.1  # ratio of neighbours on the grid
GRID = 0.05 * STEP ** torch.arange(54.0)  # up to 7.8


def main(path: str, n: int) -> None:
    """Print the figures of one bench's first images."""
    config, method = read_as(CounterfactualBench, path), Minimal()
    classifier, generator = (load(p).eval() for p in (config.classifier, config.generator))
    images, judge, rows = load_cohort(config.data)[:n], Judge(classifier), torch.arange(n)
    result = explain(images, classifier, generator, depth="boundary", method=method, seed=config.seed)
    x, target = result.x, result.target
    problem = Problem(
        x=x, source=1 - target, target=target, goal=Goal(result.margin), before=judge.margin(x, target), row=result.row,
        seed=result.seed, judge=judge, generator=generator, meter=Meter(n), labelled=True,
    )  # fmt: skip
    guided = Guided.of(method, problem)
    good = torch.stack([method.trial(guided, rows, w.expand(n))[1] >= 0 for w in GRID])
    least = GRID[good.int().argmax(0)]  # of a row that no strength convinces, the first: its edit stays a failure
    edited, excess = method.trial(guided, rows, least)
    shrunk, _ = shrink(problem, edited, paste(x, edited, method.threshold), excess >= 0, method.threshold)
    some = good.any(0) & (result.strength > 0)
    apart = (result.strength / least).log().div(torch.tensor(STEP).log())[some]
    ours, theirs = ((v - x).abs().flatten(1).mean(1)[some] for v in (result.x_cf, shrunk))
    turns = (good[1:] != good[:-1]).sum(0)[some]
    share = [float((apart <= k + 1e-3).double().mean()) for k in (1, 3)]
    nfe = float(result.nfe_unet_forward.double().mean())
    print(f"rows that some strength flips: {int(some.sum())} of {n}; U-Net evaluations: {nfe:.1f}")
    print(f"least by brute force: {spread(least[some])}; found: {spread(result.strength[some])}")
    print(f"margin changes sign once: {float((turns == 1).double().mean()):.3f}")
    print(f"found within one step: {share[0]:.3f}, within three: {share[1]:.3f}; ratio: {spread(STEP**apart)}")
    print(f"L1: {float(ours.mean()):.4f}, from the least strength: {float(theirs.mean()):.4f}; "
          f"not larger in {float((ours <= theirs).double().mean()):.3f}")  # fmt: skip


def spread(v: torch.Tensor) -> str:
    """Median and range."""
    return f"{float(v.median()):.2f} [{float(v.min()):.2f}, {float(v.max()):.2f}]"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
