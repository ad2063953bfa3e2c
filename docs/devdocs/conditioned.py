"""From p(x | class) to what the classifier sees: variants of `minimal` beside it, see conditioned.md.

Run from the repository:

    python docs/devdocs/conditioned.py settings 32     # settings of the guided replay, seeds 6 and 7, 32 brains each
    python docs/devdocs/conditioned.py variants 32     # gradients pulled back, two mirrored draws, regions drawn anew
    python docs/devdocs/conditioned.py fresh 128       # the defaults on brains on which nothing was chosen

A third argument is the folder of another generator.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from cfx.core.abduction import NoiseMaps, replay
from cfx.core.broadcast import each
from cfx.core.cohort import Cohort
from cfx.core.random import normal
from cfx.core.solvers import ancestral_mean
from cfx.counterfactual import Judge, Minimal, explain
from cfx.counterfactual.edit_space import EditSpace
from cfx.counterfactual.guidance import Guided
from cfx.counterfactual.method import Problem, Proposal
from cfx.counterfactual.metrics.evaluate import summarise
from cfx.counterfactual.metrics.rows import per_row
from cfx.counterfactual.reading import parts_of
from cfx.counterfactual.search import least_strength
from cfx.counterfactual.shrink import pasted, settled
from cfx.data import BrainConfig, load_cohort
from cfx.models import load

CHOSEN, FRESH = (6, 7), (91, 92)
SHOWN = {
    "error_to_truth_ratio": "ratio", "localisation_auprc": "AUPRC", "validity": "valid", "oracle_validity": "oracle",
    "stable": "stable", "edit_energy": "energy", "nfe_unet_forward": "U-Net", "nfe_unet_backward": "backward",
}  # fmt: skip


@dataclass(frozen=True)
class Variant(Minimal):
    """`minimal` whose replays are those of another `Guided`."""

    def guided(self, problem: Problem) -> Guided:
        """The replays of a batch."""
        return Guided.of(self, problem)

    def propose(self, problem: Problem) -> Proposal:
        """As `minimal` at depth `typical`."""
        guided = self.guided(problem)
        found = least_strength(
            partial(self.trial, guided), problem.x, problem.before - problem.margin, trials=self.trials,
            tolerance=self.tolerance, resolution=self.resolution, least=1.0, judge=partial(self.excess, problem),
        )  # fmt: skip
        image, smaller = settled(problem, found, self.threshold)
        return Proposal(image, found.strength, found.finite, smaller, guided.consent)


class PulledBack(Guided):
    """g is pulled back through the generator: J^T g, J = dD(x_t, t, target) / dx_t.

    Of the ideal generator sigma^2 / alpha J is the covariance of x given x_t, so that J^T g is the direction in which a
    tilt of p(x | x_t, target) by exp(margin) moves its mean (Chung et al. 2023, Boys et al. 2024).
    """

    def edit(self, rows: Int[Tensor, " r"], w: Float[Tensor, " r"]) -> Float[Tensor, "r c *space"]:
        """As `Guided.edit`, at one back-propagation through the generator a step."""
        p, maps, strength = self.problem, self.maps[rows], each(w, self.space.z)
        k, schedule = each(self.consent[rows], self.space.z), p.diffusion.schedule

        def moved(x_t: Tensor, t: int, s: int) -> Tensor:
            x0 = p.posterior(rows, x_t, t, p.source[rows]).mean
            x_t = x_t.detach().requires_grad_(True)
            with torch.enable_grad():
                there = p.posterior(rows, x_t, t, p.target[rows]).mean
            d = there.detach() - x0
            g = self.averaged(self.space.gradient, self.space.clamp(x0 + strength * d), t, rows)
            (g,) = torch.autograd.grad(there, x_t, g)
            p.meter.count("unet_backward", rows)
            free = self.guidance.free_step * schedule.sigma(t, x0) / schedule.alpha(t, x0)
            return x0 + strength * self.guidance.step(d, g, k, free)

        with torch.no_grad():
            return replay(maps, moved)


@dataclass(frozen=True)
class Pulled(Variant):
    """Gradients pulled back through the generator."""

    def guided(self, problem: Problem) -> Guided:
        """The replays of a batch."""
        return PulledBack(**vars(Guided.of(self, problem)))


@dataclass(frozen=True)
class Mirrored(Variant):
    """The mean of two edits, one with the noise and one with its negative: odd parts cancel.

    Attributes:
        sign: Of the noise.
    """

    steps: int = 6
    sign: int = 1

    def abduct(self, problem: Problem) -> tuple[EditSpace, NoiseMaps]:
        """As `Guidance.abduct`, of noise with this sign."""
        x, D, schedule = problem.x, problem.diffusion, problem.diffusion.schedule
        times = self.times(D)

        def noised(t: int) -> Tensor:
            eps = normal(x.shape[1:], seed=problem.seed, row=problem.row, stream=t).to(x)
            return schedule.noised(x, t, self.sign * eps) if t else x

        here, residuals, first = noised(times[0]), [], None
        with torch.no_grad():
            for t, s in pairwise(times):
                x0 = problem.posterior(problem.everyone, here, t, problem.source).mean
                first = x0 if first is None else first
                mean = ancestral_mean(schedule, x0, here, t, s)
                residuals.append(noised(s) - mean)
                here = mean + residuals[-1]
        assert first is not None
        maps = NoiseMaps(schedule, tuple(times), noised(times[0]), first, torch.stack(residuals))
        return EditSpace.of(problem), maps

    def guided(self, problem: Problem) -> Guided:
        """The replays of a batch."""
        other = Guided.of(replace(self, sign=-self.sign), problem)
        return Both(**vars(Guided.of(self, problem)), other=other)


@dataclass(frozen=True)
class Both(Guided):
    """The mean of two replays.

    Attributes:
        other: The second.
    """

    other: Guided

    def edit(self, rows: Int[Tensor, " r"], w: Float[Tensor, " r"]) -> Float[Tensor, "r c *space"]:
        """Mean of both edits."""
        return (super().edit(rows, w) + self.other.edit(rows, w)) / 2


@dataclass(frozen=True)
class Redrawn(Minimal):
    """Towards diseased, what is read is drawn anew: fresh noise there, the best of a few draws.

    Attributes:
        draws: How many.
        grow: Voxels by which the read part is grown.
        darkest: Take the draw with the darkest change among those that convince, not the one of the largest margin.
    """

    draws: int = 4
    grow: int = 2
    darkest: bool = False

    def propose(self, problem: Problem) -> Proposal:
        """As `minimal`, then once more inside what is read."""
        found = super().propose(problem)
        rows = (problem.target == 1).nonzero().flatten()
        if len(rows) == 0:
            return found
        x, best = problem.x[rows], found.image[rows].clone()
        guided, region = Guided.of(self, problem), self.region(problem, rows, best)
        score = torch.full((len(rows),), -torch.inf)
        for k in range(self.draws):
            image = self.drawn(guided, rows, region, 1000 + k)
            excess = problem.excess(rows, image)
            new = -darkest(image - x) if self.darkest else excess
            better = (excess >= 0) & (new > score)
            best[better], score[better] = image[better], new[better]
        image = found.image.clone()
        image[rows] = best
        return replace(found, image=image)

    def region(self, problem: Problem, rows: Tensor, image: Tensor) -> Bool[Tensor, "r 1 *space"]:
        """What is read of these edits, grown."""
        before, after = (problem.excess(rows, v) for v in (problem.x[rows], image))
        at = {"margin": lambda k, v: problem.excess(rows[k], v), "gradient": lambda k, v: problem.gradient(rows[k], v)}
        read = parts_of(problem.x[rows], image, before, after, **at).read  # type: ignore[arg-type]
        return F.max_pool2d(read.float(), 2 * self.grow + 1, 1, self.grow) > 0

    def drawn(self, guided: Guided, rows: Tensor, region: Tensor, seed: int) -> Float[Tensor, "r c *space"]:
        """A replay whose noise inside the region is drawn, not abducted."""
        p, schedule = guided.problem, guided.maps.schedule
        every = torch.zeros((len(p), *region.shape[1:]), dtype=torch.bool).index_copy_(0, rows, region)

        def eps(t: int) -> Tensor:
            return normal(p.x.shape[1:], seed=seed, row=p.row, stream=t).to(p.x)

        residuals = guided.maps.residuals.clone()
        for i, (t, s) in enumerate(pairwise(guided.maps.times)):
            residuals[i] = torch.where(every, deviation(schedule.alpha, t, s) * eps(s), residuals[i])
        t = guided.maps.times[0]
        x_t = torch.where(every, schedule.noised(p.x, t, eps(t)), guided.maps.x_tau)
        with torch.no_grad():
            x0, there = (p.posterior(p.everyone, x_t, t, label).mean for label in (p.source, p.target))
        maps = replace(guided.maps, x_tau=x_t, x0_tau=x0, residuals=residuals)
        edited = replace(guided, maps=maps, difference=there - x0).edit(rows, torch.ones(len(rows)))
        return pasted(p, rows, edited, self.threshold)


def deviation(alpha: object, t: int, s: int) -> float:
    """Standard deviation of x_s given x_t and x."""
    a, b = (float(alpha(v, torch.zeros(())).square()) for v in (t, s))  # type: ignore[operator]
    return max(0.0, (1 - a / b) * (1 - b) / (1 - a)) ** 0.5


def darkest(e: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Deepest mean of 3 x 3 pixels: a lesion of the cohort is at -0.7."""
    return F.avg_pool2d(e, 3, 1).flatten(1).amin(1)


@dataclass(frozen=True)
class Bench:
    """Networks and brains on which variants are compared.

    Attributes:
        networks: Classifier, generator, oracle, and a classifier of another make and other subjects.
        reference: Sets the typical margins.
        cohorts: The brains.
    """

    networks: Mapping[str, nn.Module]
    reference: Cohort
    cohorts: tuple[Cohort, ...]

    @classmethod
    def of(cls, seeds: tuple[int, ...], n: int, generator: str) -> "Bench":
        """Load everything."""
        folders = {k: f"checkpoints/brain64-{k}" for k in ("classifier", "oracle", "relu-classifier")}
        networks = {k: load(v) for k, v in folders.items()} | {"generator": load(generator)}
        cohorts = tuple(load_cohort(BrainConfig(n=n, seed=s)) for s in seeds)
        return cls(networks, load_cohort(BrainConfig(n=256, seed=1, start=100000)), cohorts)

    def line(self, name: str, method: Minimal) -> None:
        """Print the figures of one variant."""
        other, rows, more, subject = Judge(self.networks["relu-classifier"]), [], [], []
        for k, c in enumerate(self.cohorts):
            r = explain(
                c.x, self.networks["classifier"], self.networks["generator"], reference=self.reference,
                oracle=self.networks["oracle"], method=method,
            )  # fmt: skip
            before, after, true = (other.margin(v, r.target) for v in (c.x, r.x_cf, c.x_true))
            asked = r.target == 1
            seen = torch.stack([darkest(r.x_cf - c.x), (after > 0).float(), (after - before) / (true - before)], 1)
            rows.append(per_row(r, c))
            more.append(seen[asked])
            subject.append(1000 * k + torch.arange(len(r)))
        table = {k: torch.cat([v[k] for v in rows]) for k in rows[0] if all(k in v for v in rows)}
        found, drawn = summarise(table, torch.cat(subject)), torch.cat(more).mean(0).tolist()
        print(
            "| " + " | ".join([name, *(cell(found, k) for k in SHOWN), *(f"{v:.2f}" for v in drawn)]) + " |", flush=True
        )


def cell(found: Mapping[str, float], key: str) -> str:
    """Value, and the interval of what is compared."""
    value = f"{found[key]:.3f}" if key not in ("nfe_unet_forward", "nfe_unet_backward") else f"{found[key]:.0f}"
    interval = key in ("error_to_truth_ratio", "localisation_auprc")
    return f"{value} [{found[key + '_low']:.3f}, {found[key + '_high']:.3f}]" if interval else value


def settings() -> dict[str, Minimal]:
    """Twelve settings of the guided replay."""
    pairs = [(1.1, 0.4), (1.0, 0.4), (1.2, 0.4), (1.1, 0.2), (1.1, 0.6), (1.0, 0.2), (1.2, 0.2), (1.3, 0.0)]
    out = {f"c {c}, a {a}": Minimal(conditional=c, gradient=a) for c, a in pairs}
    return (
        out | {f"start {s}": Minimal(start=s) for s in (0.9, 0.8)} | {f"steps {n}": Minimal(steps=n) for n in (6, 16)}
    )


def variants() -> dict[str, Minimal]:
    """`minimal` and its variants."""
    return {
        "`minimal`": Minimal(),
        "J^T g": Pulled(),
        "J^T g, a 0.8, c 0.8": Pulled(conditional=0.8, gradient=0.8),
        "mirrored, 2 x 6 steps": Mirrored(),
        "redrawn, largest margin of 4": Redrawn(),
        "redrawn, darkest of 4": Redrawn(darkest=True),
    }


def main(what: str, n: int, generator: str = "checkpoints/brain64-diffusion") -> None:
    """Print a table."""
    bench = Bench.of(FRESH if what == "fresh" else CHOSEN, n, generator)
    drawn = ("deepest 3 x 3", "other classifier agrees", "its share of the true change")
    print("| | " + " | ".join([*SHOWN.values(), *drawn]) + " |\n" + "|---" * (1 + len(SHOWN) + len(drawn)) + "|")
    methods = {"settings": settings, "variants": variants, "fresh": lambda: {"`minimal`": Minimal()}}[what]()
    for name, method in methods.items():
        bench.line(name, method)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
