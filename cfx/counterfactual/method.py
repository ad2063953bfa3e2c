"""What a method of explanation is given, and what it gives back: the one signature all of them have.

A method sees a `Problem`, one batch of images that must change, and returns a `Proposal`. It evaluates generator and
classifier through the problem, which counts every evaluation for the row it was made for. Verification is not its
business: `cfx.counterfactual.batch` judges the images of every method alike.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core import meter
from cfx.core.denoiser import Generative, Posterior
from cfx.core.errors import InputError
from cfx.core.schedule import Time
from cfx.models.autoencoder import Vae
from cfx.models.goal import Goal
from cfx.models.judge import Judge


class Meter(meter.Meter):
    """Evaluations spent on each of `n` rows; an encoder or decoder pass of an autoencoder counts as the generator's.

    Attributes:
        to_flip: Generator evaluations and back-propagations until an attempt first flipped the row; NaN before.
    """

    def __init__(self, n: int, device: torch.device | None = None) -> None:
        """Start at zero."""
        super().__init__(n, device)
        self.to_flip = torch.full((n,), torch.nan, device=device)

    def flip(self, rows: Int[Tensor, " m"]) -> None:
        """Note that an attempt flipped each of these rows."""
        first = rows[self.to_flip[rows].isnan()]
        self.to_flip[first] = (self.unet_forward + self.unet_backward)[first].to(self.to_flip)


@dataclass(frozen=True)
class Problem:
    """One batch of images that must change, on one device. All per-row tensors have `b` rows.

    `rows` in the calls below is the row of each image handed in, so a method may work on some rows only, or on several
    versions of one row.

    Attributes:
        x: Images in [-1, 1].
        source: Present class: the most probable one besides the target.
        target: Class to reach.
        goal: What every row has to reach.
        before: Margin of `x`, below that of the goal.
        row: Counters of the images' randomness.
        seed: Seed of all randomness.
        judge: The classifier.
        generator: What the user gave: a diffusion model, an autoencoder, or None.
        meter: Counts the evaluations.
        allowed: Where the image may change, or None for everywhere; the engine restores `x` elsewhere in any case.
        labelled: Whether the generator's class labels are the classifier's classes.
    """

    x: Float[Tensor, "b c *space"]
    source: Int[Tensor, " b"]
    target: Int[Tensor, " b"]
    goal: Goal
    before: Float[Tensor, " b"]
    row: Int[Tensor, " b"]
    seed: int
    judge: Judge
    generator: object
    meter: Meter
    allowed: Bool[Tensor, "b 1 *space"] | None = None
    labelled: bool = False

    def __len__(self) -> int:
        """Number of images."""
        return len(self.x)

    @property
    def margin(self) -> Float[Tensor, " b"]:
        """Margin (target logit minus best other) to reach."""
        return self.goal.margin

    @property
    def everyone(self) -> Int[Tensor, " b"]:
        """All rows in order."""
        return torch.arange(len(self), device=self.x.device)

    @property
    def diffusion(self) -> Generative:
        """The generator as a diffusion model.

        Raises:
            InputError: it is none.
        """
        if not isinstance(self.generator, Generative):
            raise InputError(f"generator: expected a diffusion model, got {type(self.generator).__name__}")
        return self.generator

    @property
    def vae(self) -> Vae:
        """The generator as an autoencoder.

        Raises:
            InputError: it is none.
        """
        if not isinstance(self.generator, Vae):
            raise InputError(f"generator: expected an autoencoder, got {type(self.generator).__name__}")
        return self.generator

    def posterior(self, rows: Int[Tensor, " m"], x_t: Tensor, t: Time, label: Tensor | None = None) -> Posterior:
        """The generator's posterior at time t, under a label for each image or without one; with gradient if wanted."""
        self.meter.count("unet_forward", rows)
        return self.diffusion(x_t, t, label)

    def restrict(self, rows: Int[Tensor, " m"], edited: Float[Tensor, "m c *space"]) -> Float[Tensor, "m c *space"]:
        """The edited images with everything outside `allowed` as it was."""
        return edited if self.allowed is None else torch.where(self.allowed[rows], edited, self.x[rows])

    def excess(self, rows: Int[Tensor, " m"], image: Float[Tensor, "m c *space"]) -> Float[Tensor, " m"]:
        """Margin of these images beyond the one asked for; NaN where the image or the margin is not finite.

        With ordered classes the margin over those on the source's side: an edit that goes too far exceeds it all the
        same, so that a search can come back; verification asks for both sides.
        """
        self.meter.count("classifier", rows)
        good = image.isfinite().flatten(1).all(1)
        margin = self.judge.margin(image.nan_to_num(0).clamp(-1, 1), self.target[rows], self.source[rows])
        found = margin - self.margin[rows]
        return found.where(good & found.isfinite(), torch.nan)

    def attempt(self, rows: Int[Tensor, " m"], image: Float[Tensor, "m c *space"]) -> Float[Tensor, " m"]:
        """The `excess` of images that could be the answer: what it took until the first that flips is noted."""
        excess = self.excess(rows, image)
        self.meter.flip(rows[excess + self.margin[rows] > 0])
        return excess

    def gradient(self, rows: Int[Tensor, " m"], image: Float[Tensor, "m c *space"]) -> Float[Tensor, "m c *space"]:
        """Gradient of the margin that `excess` measures, with respect to the image."""
        self.meter.count("classifier", rows)
        self.meter.count("classifier_backward", rows)
        return self.judge.gradient(image, self.target[rows], self.source[rows])

    def log_gradient(self, rows: Int[Tensor, " m"], image: Float[Tensor, "m c *space"]) -> Float[Tensor, "m c *space"]:
        """Gradient of log p(target) with respect to the image, the guidance of the published methods."""
        self.meter.count("classifier", rows)
        self.meter.count("classifier_backward", rows)
        return self.judge.log_gradient(image, self.target[rows])


@dataclass(frozen=True)
class Proposal:
    """What a method found, one row an image of the problem.

    Attributes:
        image: Its best image: the smallest change that reached the margin, else the closest attempt.
        strength: The method's own measure of how far it went.
        finite: False where the row had to be given up because a number became NaN or infinite.
        smaller: Margin of the next smaller change the method tried and rejected, the certificate of local
            minimality (below `Problem.margin` where it holds); NaN where it has none.
        consent: How far the classifier agreed with the generator's classes, 0 to 1, for methods that ask; else None.
    """

    image: Float[Tensor, "b c *space"]
    strength: Float[Tensor, " b"]
    finite: Bool[Tensor, " b"]
    smaller: Float[Tensor, " b"]
    consent: Float[Tensor, " b"] | None = None


@runtime_checkable
class Method(Protocol):
    """One way to make counterfactuals; a frozen dataclass of its settings."""

    name: ClassVar[str]

    def propose(self, problem: Problem) -> Proposal:
        """Find an image for every row of the problem."""


class Attempts:
    """Keeps the best of several attempts at each row: the first that reaches the margin, else the closest one."""

    def __init__(self, problem: Problem) -> None:
        """Start from the unchanged images."""
        self.problem = problem
        self.image, self.excess = problem.x.clone(), problem.before - problem.margin
        self.strength = torch.zeros_like(self.excess)
        self.smaller = torch.full_like(self.excess, torch.nan)
        self.finite = torch.ones_like(self.excess, dtype=torch.bool)

    @property
    def unsolved(self) -> Int[Tensor, " r"]:
        """Rows that no attempt has carried to the margin yet."""
        return ((self.excess < 0) & self.finite).nonzero().flatten()

    def add(
        self, rows: Int[Tensor, " r"], image: Float[Tensor, "r c *space"], strength: Tensor | float
    ) -> Float[Tensor, " r"]:
        """Judge one more attempt at these (distinct) rows, keep what is better, and return by how much each exceeds."""
        image = self.problem.restrict(rows, image.clamp(-1, 1))
        excess = self.problem.attempt(rows, image)
        strength = torch.as_tensor(strength, dtype=self.strength.dtype, device=image.device).expand(len(rows))
        self.finite[rows] = excess.isfinite()
        better = excess.isfinite() & (self.excess[rows] < 0) & (excess > self.excess[rows])
        at = rows[better]
        self.image[at], self.excess[at], self.strength[at] = image[better], excess[better], strength[better]
        return excess

    def proposal(self) -> Proposal:
        """The best attempts."""
        return Proposal(self.image, self.strength, self.finite, self.smaller)
