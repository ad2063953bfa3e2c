"""The guided replay: the image's own noise, run through the generator again with its estimates moved towards a class.

The image x is abducted exactly (edit-friendly noise maps, `cfx.core.abduction`) under its present class. Replay at
strength w moves the one-step estimate of the clean image at every time t to

    x0 + w (k c d + (k a |d| + (1 - k) l) g / |g|),    x0 = D(x_t, t, source),    d = D(x_t, t, target) - x0

with g = grad_x margin(f) at x0 + w d, averaged over noisy copies, and |.| the root mean square. d, the difference of
the generator's class-conditional estimates, keeps the edit on the manifold. But d explains the generator's labels; so
it acts only as far as the classifier that is being explained agrees: its **consent** k in [0, 1] is

    k = 2 (r(d) - mean_p max(0, r(p))),    r(v) = (margin(x0 + v) - margin(x0)) / (margin asked for - margin(x))

at the first, noisiest step: the share of the asked change of margin that d brings by itself, less what its placebos p
bring, which are d displaced along each axis, both ways, by three sixteenths of it; half of the change is full consent,
for the first estimate is a blurred one. (The angle between d and g would not
do: at a saturated logit g points anywhere. Nor would r(d): any darkening moves a network that was never trained.) A
classifier that looks at something else gives no consent; then, and for generators without classes (d = 0, k = 0), the
step follows g alone, with length l = `free_step` sigma_t / alpha_t. The weights c = `conditional` and a = `gradient`
are settings. No back-propagation through the generator.

At w = 0 the replay returns x.

References: FastDiME (Weng et al. 2024) for the one-step gradient; classifier-free guidance (Ho and Salimans 2022) for
d; Rombach et al. (2022) for latent generators, whose x0 is a code and whose gradient goes through the decoder.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.abduction import NoiseMaps, abduct, mean_of, replay
from cfx.core.broadcast import each, rms, unit
from cfx.core.denoiser import Generative
from cfx.core.gradients import smoothed
from cfx.core.random import normal
from cfx.counterfactual.edit_space import EditSpace
from cfx.counterfactual.method import Problem

_DISPLACED = 3 / 16  # of an axis
_FULL = 0.5  # of the asked change, from which on consent is full
_FAINT = 0.05  # consent below this is noise and counts as none
_NOISY_COPIES = 1 << 20  # streams of the gradient's noise: beyond every time t, which abduction uses


@dataclass(frozen=True)
class Guidance:
    """Settings of a guided replay; the defaults are meant to be left alone.

    Attributes:
        start: Noise level tau as a share of T from which the image is replayed.
        steps: Steps of a replay at depth `typical`, where the first replay is mostly the last.
        boundary_steps: Steps of a replay at depth `boundary`, where several strengths have to be tried.
        conditional: Weight c of the conditional difference d.
        gradient: Weight a of the classifier gradient.
        copies: Noisy copies the gradient is averaged over; more make edits without consent more stable.
        spread: Standard deviation of their noise.
        free_step: Length of a unit-strength step along g alone, in sigma_t / alpha_t.
    """

    start: float = 0.95
    steps: int = 11
    boundary_steps: int = 6
    conditional: float = 1.1
    gradient: float = 0.4
    copies: int = 2
    spread: float = 0.8
    free_step: float = 0.05

    def times(self, generator: Generative, *, whole: bool = True) -> list[int]:
        """The grid of a replay, from tau down to 0."""
        steps = self.steps if whole else self.boundary_steps
        return generator.schedule.times(steps, start=round(self.start * generator.schedule.T))

    def abduct(self, problem: Problem) -> tuple[EditSpace, NoiseMaps]:
        """The images as the generator sees them, and their noise under the present class."""
        generator, source = problem.diffusion, problem.source if problem.labelled else None
        times = self.times(generator, whole=problem.goal.whole)
        for _ in times[1:]:
            problem.meter.count("unet_forward", problem.everyone)
        space = EditSpace.of(problem)
        return space, abduct(generator, space.z, times, seed=problem.seed, row=problem.row, label=source)

    def null(self, problem: Problem) -> Float[Tensor, "b c *space"]:
        """The replay of the abducted maps under the present class, nothing pasted."""
        label = problem.source if problem.labelled else None
        space, maps = self.abduct(problem)
        with torch.no_grad():
            return space.image(problem.everyone, replay(maps, mean_of(problem.diffusion, label)))

    def step(
        self,
        d: Float[Tensor, "r c *space"],
        g: Float[Tensor, "r c *space"],
        k: Float[Tensor, "r ..."],
        free: Float[Tensor, "..."],
    ) -> Float[Tensor, "r c *space"]:
        """The change of the estimate at strength 1: k c d + (k a |d| + (1 - k) l) g / |g|.

        Args:
            d: Conditional difference.
            g: Classifier gradient, of any length.
            k: Consent of every row.
            free: Length l of a step along g alone.
        """
        c, a = self.conditional, self.gradient
        return k * c * d + (k * a * each(rms(d), d) + (1 - k) * free) * unit(g)


def placebos(d: Float[Tensor, "b c *space"]) -> Iterator[Float[Tensor, "b c *space"]]:
    """A difference where it does not belong: displaced along each axis, both ways."""
    for axis in range(2, d.ndim):
        far = round(_DISPLACED * d.shape[axis])
        yield from (d.roll(way * far, axis) for way in (1, -1))


@dataclass(frozen=True)
class Guided:
    """The guided replays of one batch.

    Attributes:
        guidance: Settings.
        problem: The batch.
        space: Its images as the generator sees them.
        maps: Their abducted noise.
        difference: The conditional difference d at the first time; 0 without classes.
        consent: How far the classifier agrees with it, k from 0 to 1; 0 without classes.
    """

    guidance: Guidance
    problem: Problem
    space: EditSpace
    maps: NoiseMaps
    difference: Tensor
    consent: Float[Tensor, " b"]

    @classmethod
    def of(cls, guidance: Guidance, problem: Problem) -> "Guided":
        """Abduct the images of a problem under their present class, and ask for the classifier's consent."""
        space, maps = guidance.abduct(problem)
        rows, x0 = problem.everyone, maps.x0_tau
        if not problem.labelled:
            return cls(guidance, problem, space, maps, torch.zeros_like(x0), torch.zeros_like(problem.margin))
        with torch.no_grad():
            d = problem.posterior(rows, maps.x_tau, maps.times[0], problem.target).mean - x0
            without = problem.excess(rows, space.image(rows, x0))

            def response(v: Tensor) -> Tensor:
                moved = problem.excess(rows, space.image(rows, x0 + v)) - without
                return moved / (problem.margin - problem.before)

            null = torch.stack([response(p).clamp_min(0) for p in placebos(d)]).mean(0)
            share = ((response(d) - null) / _FULL).clamp(0, 1).nan_to_num(0)
        return cls(guidance, problem, space, maps, d, share.where(share >= _FAINT, 0.0))

    @property
    def asked(self) -> Float[Tensor, " b"] | None:
        """The consent, where there were classes to consent to."""
        return self.consent if self.problem.labelled else None

    def edit(self, rows: Int[Tensor, " r"], w: Float[Tensor, " r"]) -> Float[Tensor, "r c *space"]:
        """The images of these rows replayed at strengths `w`, before pasting."""
        maps, strength = self.maps[rows], each(w, self.space.z)
        k, schedule = each(self.consent[rows], self.space.z), self.problem.diffusion.schedule

        def moved(x_t: Tensor, t: int, s: int) -> Tensor:
            # the first state is the same at every strength
            x0, d = self._estimates(x_t, t, rows) if t < maps.times[0] else (maps.x0_tau, self.difference[rows])
            g = self.averaged(self.space.gradient, self.space.clamp(x0 + strength * d), t, rows)
            free = self.guidance.free_step * schedule.sigma(t, x0) / schedule.alpha(t, x0)
            return x0 + strength * self.guidance.step(d, g, k, free)

        with torch.no_grad():
            return self.space.image(rows, replay(maps, moved))

    def averaged(
        self, gradient: Callable[[Tensor, Tensor], Tensor], x: Float[Tensor, "r c *space"], t: int, rows: Tensor
    ) -> Float[Tensor, "r c *space"]:
        """Mean of a gradient over noisy copies of the images or codes of these rows, the noise that of time t."""
        p, n = self.problem, self.guidance.copies
        noise = normal((n, *x.shape[1:]), seed=p.seed, row=p.row[rows], stream=_NOISY_COPIES + t).to(x)
        repeated = rows.repeat_interleave(n)
        return smoothed(lambda copies: gradient(repeated, copies), x, self.guidance.spread * noise)

    def _estimates(self, x_t: Tensor, t: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """x0 and d; for rows without consent d is not evaluated, and 0."""
        p, d = self.problem, torch.zeros_like(x_t)
        if not p.labelled:
            return p.posterior(rows, x_t, t).mean, d
        some = (self.consent[rows] > 0).nonzero().flatten()
        label = torch.cat([p.source[rows], p.target[rows[some]]])
        mean = p.posterior(torch.cat([rows, rows[some]]), torch.cat([x_t, x_t[some]]), t, label).mean
        x0 = mean[: len(rows)]
        d[some] = mean[len(rows) :] - x0[some]
        return x0, d
