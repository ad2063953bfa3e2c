"""How near to the true counterfactual can any method come? `.venv/bin/python docs/devdocs/floor.py`.

A healthy brain does not show where its lesions would be, so nobody can know. Rendered here is the best edit without
that knowledge: the true twin in everything, true severity included, but without lesions.
"""

from dataclasses import replace

import torch

from cfx.data import BrainConfig
from cfx.data.brain import CLASSES, Factors, Population


class Unscarred(Population):
    """The same subjects without lesions."""

    def _lesions(self, f: Factors, maps: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(maps[:, :1])


if __name__ == "__main__":
    config = BrainConfig(n=256, seed=21)
    index = torch.arange(config.n)
    people, unscarred = Population(config), Unscarred(config)
    y, factors = people.labels(index), people.factors(index)
    twins = people.twins(factors)
    x, truth, best = people.render(factors).x, people.render(twins).x, unscarred.render(twins).x
    mean = replace(twins, severity=torch.where(y == 1, 0.075, 0.95))
    guess = unscarred.render(mean).x
    print("| from | error to truth of no edit | no lesions, true severity | no lesions, mean severity |")
    print("|---|---|---|---|")
    for k, name in enumerate(CLASSES):
        rows = y == k
        none, a, b = ((v - truth)[rows].flatten(1).square().mean(1).sqrt().mean() for v in (x, best, guess))
        print(f"| {name} | {none:.4f} | {a / none:.3f} of it | {b / none:.3f} of it |")
