"""How near to the true counterfactual can any method come? `.venv/bin/python docs/devdocs/floor.py`, two minutes.

A healthy brain does not show where its lesions would be, nor how severe its disease: nobody can know. Rendered here are
the best edits without that knowledge: the true twin without lesions, at its true or at the mean severity; and the mean
over all that could be, the twin at drawn severities with drawn lesions. No estimate has a smaller mean squared error
than that mean. It is a blur, not an image of anybody. With K draws its expected squared error is (1 + 1 / K) times the
least, and is divided by that. A diseased brain hides only how healthy it would be, and what its lesions cover.

Two estimators, which are not the same number: that of the bench, the mean over rows of the root mean square error, over
that of no edit; and the pooled one, the root of the mean over rows and pixels, which the mean over all minimises.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.broadcast import rms
from cfx.core.random import uniform
from cfx.data import BrainConfig
from cfx.data.brain import DISEASED_SEVERITY, HEALTHY_SEVERITY, Factors, Population

DRAWS = 48
ROWS = BrainConfig(n=256, seed=51)
SEVERITY = (HEALTHY_SEVERITY, DISEASED_SEVERITY)
NAMES = ("healthy", "diseased")


@dataclass(frozen=True)
class Unscarred(Population):
    """The same subjects without lesions."""

    def _lesions(self, f: Factors, maps: Tensor) -> Tensor:
        return torch.zeros_like(maps[:, :1])


@dataclass(frozen=True)
class Scarred(Population):
    """The same subjects with the lesions of others."""

    draw: int = 0

    def _lesions(self, f: Factors, maps: Tensor) -> Tensor:
        return super()._lesions(replace(f, index=f.index + 1000 * (self.draw + 1)), maps)


def mean_of_all(rows: Tensor, twins: Factors, target: int) -> Float[Tensor, "n c *space"]:
    """The mean over severities of the target class and, for the diseased, over lesions."""
    low, high = SEVERITY[target]
    mean = 0.0
    for k in range(DRAWS):
        severity = low + (high - low) * uniform((1,), seed=1, row=rows, stream=k)[:, 0]
        mean = mean + Scarred(ROWS, draw=k).render(replace(twins, severity=severity)).x / DRAWS
    assert isinstance(mean, Tensor)
    return mean


def floors(target: int) -> None:
    """Print the errors of one direction, each over that of no edit by the same estimator."""
    people = Population(ROWS)
    rows = (people.labels(torch.arange(ROWS.n)) != target).nonzero()[:, 0]
    factors = people.factors(rows)
    twins = people.twins(factors)
    x, truth = people.render(factors).x, people.render(twins).x
    middle = replace(twins, severity=torch.full_like(twins.severity, sum(SEVERITY[target]) / 2))
    unscarred = Unscarred(ROWS)
    lines = {
        "no edit": x,
        "no lesions, true severity": unscarred.render(twins).x,
        "no lesions, mean severity": unscarred.render(middle).x,
        "mean over all lesions and severities": mean_of_all(rows, twins, target),
    }
    for name, image in lines.items():
        scale = (1 + 1 / DRAWS) ** -0.5 if name.startswith("mean") else 1.0
        error, none = scale * rms((image - truth).double()), rms((x - truth).double())
        pooled = float((error.square().mean() / none.square().mean()).sqrt())
        print(f"| {NAMES[target]} | {name} | {error.mean():.4f} | {error.mean() / none.mean():.3f} | {pooled:.3f} |")


def main() -> None:
    """Print the errors of both directions."""
    print("| towards | edit | error to truth | bench's estimator | pooled |\n|---|---|---|---|---|")
    for target in (1, 0):
        floors(target)


if __name__ == "__main__":
    main()
