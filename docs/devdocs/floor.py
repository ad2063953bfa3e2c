"""How near to the true counterfactual can any method come? `.venv/bin/python docs/devdocs/floor.py`, two minutes.

A healthy brain does not show where its lesions would be, nor how severe its disease: nobody can know. Rendered here are
the best edits without that knowledge: the true twin without lesions, at its true or at the mean severity; and the mean
over all that could be, the twin at drawn severities with drawn lesions. No estimate has a smaller mean squared error
than that mean. It is a blur, not an image of anybody. With K draws its expected squared error is (1 + 1 / K) times the
least, and is divided by that.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.random import uniform
from cfx.data import BrainConfig
from cfx.data.brain import DISEASED_SEVERITY, Factors, Population

DRAWS = 48


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


def rms(v: Float[Tensor, "n c *space"]) -> float:
    """Root mean square over rows and pixels."""
    return float(v.square().mean().sqrt())


def main() -> None:
    """Print the errors of healthy brains' counterfactuals."""
    config = BrainConfig(n=256, seed=51)
    people = Population(config)
    rows = (people.labels(torch.arange(config.n)) == 0).nonzero()[:, 0]
    factors = people.factors(rows)
    twins = people.twins(factors)
    x, truth = people.render(factors).x, people.render(twins).x
    low, high = DISEASED_SEVERITY
    middle = replace(twins, severity=torch.full_like(twins.severity, (low + high) / 2))
    known, guess = (Unscarred(config).render(f).x for f in (twins, middle))
    mean = torch.zeros_like(x)
    for k in range(DRAWS):
        severity = low + (high - low) * uniform((1,), seed=1, row=rows, stream=k)[:, 0]
        mean += Scarred(config, draw=k).render(replace(twins, severity=severity)).x / DRAWS
    none = rms(x - truth)
    least = rms(mean - truth) / (1 + 1 / DRAWS) ** 0.5
    print("| healthy to diseased, root mean square | error to truth | of no edit |\n|---|---|---|")
    lines = {
        "no edit": none,
        "no lesions, true severity": rms(known - truth),
        "no lesions, mean severity": rms(guess - truth),
    }
    for name, error in (lines | {"mean over all lesions and severities": least}).items():
        print(f"| {name} | {error:.4f} | {error / none:.3f} |")


if __name__ == "__main__":
    main()
