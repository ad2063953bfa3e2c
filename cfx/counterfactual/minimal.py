"""The `minimal` method: replay the image's own noise under guidance, at the least strength that convinces f.

The image x is abducted exactly (edit-friendly noise maps, `cfx.core.abduction`) under its present class. Replay at
strength w moves the one-step estimate of the clean image at every time t to

    x0 + w (k d + (k |d| + (1 - k) l) g / |g|),    x0 = D(x_t, t, source),    d = D(x_t, t, target) - x0

with g = grad_x margin(f) at the one-step estimate, averaged over noisy copies. d, the difference of the generator's
class-conditional scores, keeps the edit on the manifold. But d explains the generator's labels; so it acts only as far
as the classifier that is being explained agrees: k in [0, 1] is its **consent**, the share of the asked change of
margin that d alone brings about at the first, noisiest step. (The angle between d and g would not do: at a saturated
logit g points anywhere.) A classifier that looks at something else gives no consent; then, and for generators without
classes (k = 0), the step follows g alone, with length l = `free_step` sigma_t / alpha_t. No back-propagation through
the generator.

At w = 0 the replay returns x. Changes below an absolute threshold are shrunk to exactly zero (`paste`), so x stays bit
for bit outside the mask. Depth `boundary` takes the least w, then shrinks the edit (`cfx.counterfactual.shrink`) and
leaves a certified local minimum. Depth `typical` wants a whole change: w = 1, the generator's own version of the target
class, or more, until f is as sure as of real images.

References: FastDiME (Weng et al. 2024) for the one-step gradient; classifier-free guidance (Ho and Salimans 2022) for
d; Rombach et al. (2022) for latent generators, whose x0 is a code and whose gradient goes through the decoder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.abduction import NoiseMaps, abduct, mean_of, replay
from cfx.core.denoiser import Generative
from cfx.core.random import normal
from cfx.counterfactual.edit_space import Codes
from cfx.counterfactual.method import Problem, Proposal, each, rms, unit
from cfx.counterfactual.search import least_strength
from cfx.counterfactual.shrink import paste, shrink

_FAINT = 0.05  # consent below this is noise and counts as none
_TOUCHES = (0.95, 1.05, 0.9, 1.1, 0.8, 1.2)  # scales of a near miss, nearest to the whole edit first
_NUDGES = (0.05, 0.1, 0.2)  # steps along the gradient that finish one, in units of the edit
_NOISY_COPIES = 1 << 20  # streams of the gradient's noise: beyond every time t, which abduction uses


@dataclass(frozen=True)
class Minimal:
    """Settings of the method; the defaults are meant to be left alone.

    Attributes:
        start: Noise level tau as a share of T from which the image is replayed.
        steps: Steps of a replay at depth `typical`, where the first replay is mostly the last.
        boundary_steps: Steps of a replay at depth `boundary`, where several strengths have to be tried.
        trials: Most strengths tried for a row.
        tolerance: A margin this far above the one asked for is near enough.
        resolution: So near to the least strength, relative to it, ends the search.
        conditional: Weight of the conditional difference d.
        gradient: Weight of the classifier gradient.
        copies: Noisy copies the gradient is averaged over; more make edits without consent more stable.
        spread: Standard deviation of their noise.
        free_step: Length of a unit-strength step along g alone, in sigma_t / alpha_t.
        least: Changes below this absolute value (range [-1, 1]) are not made.
    """

    name: ClassVar[str] = "minimal"

    start: float = 0.95
    steps: int = 11
    boundary_steps: int = 6
    trials: int = 4
    tolerance: float = 0.3
    resolution: float = 0.1
    conditional: float = 1.1
    gradient: float = 0.4
    copies: int = 2
    spread: float = 0.8
    free_step: float = 0.05
    least: float = 0.03

    def times(self, generator: Generative, *, typical: bool = True) -> list[int]:
        """The grid of a replay, from tau down to 0."""
        steps = self.steps if typical else self.boundary_steps
        return generator.schedule.times(steps, start=round(self.start * generator.schedule.T))

    def null(self, problem: Problem) -> Float[Tensor, "b c *space"]:
        """The replay of the abducted maps under the present class, nothing pasted."""
        label = problem.source if problem.labelled else None
        codes, maps = self.abduct(problem)
        with torch.no_grad():
            return codes.image(problem.everyone, replay(maps, mean_of(problem.diffusion, label)))

    def abduct(self, problem: Problem) -> tuple[Codes, NoiseMaps]:
        """The images as the generator sees them, and their noise under the present class."""
        generator, source = problem.diffusion, problem.source if problem.labelled else None
        times = self.times(generator, typical=problem.goal.whole)
        for _ in times[1:]:
            problem.meter.count("unet_forward", problem.everyone)
        codes = Codes.of(problem)
        return codes, abduct(generator, codes.z, times, seed=problem.seed, row=problem.row, label=source)

    def propose(self, problem: Problem) -> Proposal:
        """The edit of least strength for every row; at depth `boundary` shrunk to a certified local minimum."""
        guided = Guided.of(self, problem)
        whole = problem.goal.whole and problem.labelled
        found = least_strength(
            guided.trial, problem.x, problem.before - problem.margin,
            trials=self.trials, tolerance=self.tolerance, resolution=self.resolution,
            first=1.0 if problem.goal.whole else 0.5, least=1.0 if whole else 0.0, judge=guided.judged,
        )  # fmt: skip
        image = problem.restrict(problem.everyone, paste(problem.x, found.image, self.least))
        smaller = found.failed + problem.margin
        if not problem.goal.whole or problem.goal.two_sided:
            image, smaller = shrink(problem, found.image, image, found.excess >= 0, self.least)
        return Proposal(image, found.strength, found.finite, smaller, guided.outside(found.image), guided.consent)


@dataclass(frozen=True)
class Guided:
    """The replays of one batch.

    Attributes:
        method: Settings.
        problem: The batch.
        codes: Its images as the generator sees them.
        maps: Their abducted noise.
        difference: The conditional difference at the first time; None without classes.
        consent: How far the classifier agrees with it, from 0 to 1; 0 without classes.
    """

    method: Minimal
    problem: Problem
    codes: Codes
    maps: NoiseMaps
    difference: Tensor | None
    consent: Float[Tensor, " b"]

    @classmethod
    def of(cls, method: Minimal, problem: Problem) -> "Guided":
        """Abduct the images of a problem under their present class, and ask for the classifier's consent."""
        codes, maps = method.abduct(problem)
        if not problem.labelled:
            return cls(method, problem, codes, maps, None, torch.zeros_like(problem.margin))
        rows, x0 = problem.everyone, maps.x0_tau
        with torch.no_grad():
            d = problem.posterior(rows, maps.x_tau, maps.times[0], problem.target).mean - x0
            without, with_ = (problem.excess(rows, codes.image(rows, v)) for v in (x0, x0 + d))
        share = ((with_ - without) / (problem.margin - problem.before)).clamp(0, 1).nan_to_num(0)
        return cls(method, problem, codes, maps, d, share.where(share >= _FAINT, 0.0))

    def trial(self, rows: Int[Tensor, " r"], w: Float[Tensor, " r"]) -> tuple[Tensor, Tensor]:
        """The replayed images before pasting, and by how much each, once pasted, exceeds what is asked for."""
        edited = self.edit(rows, w)
        finite = edited.isfinite().flatten(1).all(1)
        edited = torch.where(each(finite, edited), edited, self.problem.x[rows])
        excess = self.judged(rows, edited)
        if self.problem.goal.whole and self.problem.labelled:
            edited, excess = self._touched_up(rows, edited, excess)
        return edited, excess.where(finite, torch.nan)

    def judged(self, rows: Int[Tensor, " r"], edited: Float[Tensor, "r c *space"]) -> Float[Tensor, " r"]:
        """By how much replayed images, once pasted, exceed the margin."""
        p = self.problem
        return p.excess(rows, p.restrict(rows, paste(p.x[rows], edited, self.method.least)))

    def _touched_up(self, rows: Tensor, edited: Tensor, excess: Tensor) -> tuple[Tensor, Tensor]:
        """Scale edits that miss the margin by little.

        A trained classifier's logit is flat among images it is sure of, and not monotone there: a whole edit can miss
        a typical margin by a hair. A somewhat smaller or larger copy of it, the nearest to the whole one that
        convinces, or else the least nudge along the averaged gradient, costs no replay; a larger strength would.
        """
        edit = edited - self.problem.x[rows]
        for s in _TOUCHES:
            self._retouch(rows, edited, excess, s * edit)
        near, step = self._near(excess), torch.zeros_like(edit)
        if len(near):
            g = self._averaged(self.problem.gradient, edited[near], 0, rows[near])
            step[near] = rms(edit[near]) * unit(g)
        for s in _NUDGES:
            self._retouch(rows, edited, excess, edit + s * step)
        return edited, excess

    def _near(self, excess: Float[Tensor, " r"]) -> Int[Tensor, " k"]:
        """Which edits miss the margin by little."""
        return ((excess < 0) & (excess >= -self.method.tolerance)).nonzero().flatten()

    def _retouch(self, rows: Tensor, edited: Tensor, excess: Tensor, edit: Tensor) -> None:
        """Put other edits in the place of those that nearly convince, where they do."""
        near = self._near(excess)
        if len(near) == 0:
            return
        again = self.problem.x[rows[near]] + edit[near]
        found = self.judged(rows[near], again)
        better = near[found >= 0]
        edited[better], excess[better] = again[found >= 0], found[found >= 0]

    def edit(self, rows: Int[Tensor, " r"], w: Float[Tensor, " r"]) -> Float[Tensor, "r c *space"]:
        """The images of these rows replayed at strengths `w`, before pasting."""
        maps = self.maps[rows]

        def mean(x_t: Tensor, t: int, s: int) -> Tensor:
            # the first state is the same at every strength
            x0, d = self._means(x_t, t, rows) if t < maps.times[0] else (maps.x0_tau, self._first(rows))
            return x0 + each(w, x0) * self._step(x0, d, each(w, x0), t, rows)

        with torch.no_grad():
            return self.codes.image(rows, replay(maps, mean))

    def outside(self, edited: Float[Tensor, "b c *space"]) -> Float[Tensor, " b"]:
        """Share of the margin's change that pasting cut off: (m(edited) - m(pasted)) / (m(edited) - m(x))."""
        p = self.problem
        rows = p.everyone
        pasted = p.restrict(rows, paste(p.x, edited.nan_to_num(0), self.method.least))
        whole, kept = p.excess(rows, edited), p.excess(rows, pasted)
        return (whole - kept) / (whole + p.margin - p.before)

    def _first(self, rows: Tensor) -> Tensor | None:
        """The conditional difference at the first time."""
        return None if self.difference is None else self.difference[rows]

    def _means(self, x_t: Tensor, t: int, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """The estimate under the present class, and the conditional difference (None without classes).

        The difference is not evaluated, and left at 0, for rows without consent.
        """
        p = self.problem
        if not p.labelled:
            return p.posterior(rows, x_t, t).mean, None
        some = (self.consent[rows] > 0).nonzero().flatten()
        label = torch.cat([p.source[rows], p.target[rows[some]]])
        mean = p.posterior(torch.cat([rows, rows[some]]), torch.cat([x_t, x_t[some]]), t, label).mean
        x0, d = mean[: len(rows)], torch.zeros_like(x_t)
        d[some] = mean[len(rows) :] - x0[some]
        return x0, d

    def _step(self, x0: Tensor, d: Tensor | None, w: Tensor, t: int, rows: Tensor) -> Tensor:
        """The change of the estimate at strength 1."""
        m, schedule = self.method, self.problem.diffusion.schedule
        g = unit(self._gradient(x0 if d is None else x0 + w * d, t, rows))
        free = m.free_step * schedule.sigma(t, x0) / schedule.alpha(t, x0)
        if d is None:
            return free * g
        k = each(self.consent[rows], x0)
        return k * m.conditional * d + (k * m.gradient * rms(d) + (1 - k) * free) * g

    def _gradient(self, x0: Tensor, t: int, rows: Tensor) -> Tensor:
        """Classifier gradient at the clean estimate, averaged over noisy copies."""
        return self._averaged(self.codes.gradient, x0.clamp(-1, 1) if self.codes.left is None else x0, t, rows)

    def _averaged(self, gradient: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: int, rows: Tensor) -> Tensor:
        """Mean of a gradient over noisy copies of images or codes."""
        p, k = self.problem, self.method.copies
        noise = normal((k, *x.shape[1:]), seed=p.seed, row=p.row[rows], stream=_NOISY_COPIES + t).to(x)
        copies = x[:, None] + self.method.spread * noise
        g = gradient(rows.repeat_interleave(k), copies.flatten(0, 1))
        return g.view(len(rows), k, *x.shape[1:]).mean(1)
