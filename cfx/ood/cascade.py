"""Detectors one after another, the cheapest first; the next is asked only about images that are not decided.

Every stage's score is put on one scale by in-distribution images that it was not fitted to, with their median 0 and
their 90 % quantile 1. An image that a stage finds ordinary (between their 10 % quantile and their median) or far beyond
nearly all of them (above `beyond`) is decided and keeps that score; the others go on to the next stage, and the last
decides. A score below the 10 % quantile decides nothing: an autoencoder gives back blurred images best of all.
The score of an image remains a function of the image alone, and its p-value valid.

Cost: that of the first stage for every image, of the others for undecided images alone.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.random import permutation
from cfx.ood.detector import Ask, Learn, Scored, Scorer
from cfx.ood.registry import build_detector

_SPLIT = 0xCA  # stream
_LOW, _HIGH = 0.1, 0.9  # quantiles: from where an image can be ordinary, and what is 1 on the common scale


@dataclass(frozen=True)
class Cascade:
    """Settings of the detector.

    Attributes:
        stages: Names of detectors, the cheapest first. One whose networks are not given is left out.
        beyond: Score, on the common scale, from which an image is out of distribution without further questions.
        share: Share of the images it is fitted to that set the scales instead.

    Raises:
        InputError: no stage, a scale that ends below 1, or a share outside (0, 1).
    """

    name: ClassVar[str] = "cascade"
    needs: ClassVar[tuple[str, ...]] = ("generator",)
    stages: tuple[str, ...] = ("vae-mahalanobis", "denoising-once", "denoising")
    beyond: float = 6.0
    share: float = 0.25

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.stages or self.name in self.stages:
            raise InputError(f"stages: expected names of other detectors, got {list(self.stages)}")
        if not self.beyond > 1 or not 0 < self.share < 1:
            raise InputError(f"beyond, share: expected above 1 and in (0, 1), got {self.beyond} and {self.share}")

    def fit(self, learn: Learn) -> "CascadeScorer":
        """Fit all stages to some of the images, and their scales to the others.

        Raises:
            InputError: fewer than eight images, no stage whose networks are there, or as the stages'.
        """
        if len(learn.cohort) < 8:
            raise InputError(f"cohort: expected at least 8 images to fit a cascade to, got {len(learn.cohort)}")
        order = permutation(len(learn.cohort), seed=learn.seed, stream=_SPLIT)
        aside = max(2, round(self.share * len(order)))
        mine, other = learn.of(order[aside:]), learn.of(order[:aside])
        made = [build_detector(name) for name in self.stages]
        there = [stage for stage in made if all(getattr(learn.tools, need) for need in stage.needs)]
        if not there:
            raise InputError(f"stages: expected one whose networks are given, got {list(self.stages)}")
        scorers = [stage.fit(mine) for stage in there]
        scores = torch.stack([other.collect(lambda ask, s=s: s(ask).score.double()) for s in scorers])  # type: ignore[misc]
        low, middle, high = (scores.quantile(share, dim=1) for share in (_LOW, 0.5, _HIGH))
        scale = (high - middle).clamp_min(1e-9)
        return CascadeScorer(tuple(scorers), middle, scale, (low - middle) / scale, self.beyond)


@dataclass(frozen=True)
class CascadeScorer:
    """The detector, fitted.

    Attributes:
        stages: The fitted stages.
        middle: Median score of each on in-distribution images.
        scale: What one unit of the common scale is of each.
        least: From where each finds an image ordinary, on the common scale.
        beyond: From where an image is out without further questions.
    """

    stages: tuple[Scorer, ...]
    middle: Float[Tensor, " k"]
    scale: Float[Tensor, " k"]
    least: Float[Tensor, " k"]
    beyond: float

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch; its statistic `stage` is the one, from 0, that decided each image."""
        score = torch.zeros(len(ask), dtype=torch.float64, device=ask.x.device)
        decided_by = torch.zeros_like(score)
        rows = torch.arange(len(ask), device=ask.x.device)
        for k, stage in enumerate(self.stages):
            with ask.some(rows) as part:
                found = (stage(part).score.double().to(score) - self.middle[k]) / self.scale[k]
            score[rows], decided_by[rows] = found, float(k)
            ordinary = (found >= self.least[k]) & (found <= 0)
            rows = rows[~ordinary & (found < self.beyond)]
            if not len(rows):
                break
        return Scored(score, None, {"stage": decided_by})
