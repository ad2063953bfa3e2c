"""Fit a detector to in-distribution images, calibrate it on others of them, and score anything.

The score of a fitted detector is a fixed function of an image. So the scores of calibration images and of a new image
of the same distribution are exchangeable, and the conformal p-value of the new one is valid in finite samples, whatever
the detector and however bad it is (`cfx.core.conformal`); that holds for images as a whole, not for every kind of them.
"""

import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from cfx.core.cohort import SUBJECT, Cohort, Source, as_source, check_images, subject_names
from cfx.core.conformal import conformal_p_values, conformal_quantile
from cfx.core.denoiser import Generative
from cfx.core.errors import CfxWarning, InputError
from cfx.core.random import permutation
from cfx.models.autoencoder import as_vae
from cfx.models.doubts import of_outputs, of_range
from cfx.models.features import Penultimate
from cfx.models.judge import Classifier, Judge
from cfx.models.running import at_rest, device_of
from cfx.models.wrappers import Score
from cfx.ood.detector import Ask, Detector, Features, Learn, Scored, Scorer, Spent, Tools
from cfx.ood.registry import build_detector
from cfx.ood.result import Membership, OodScores

Images = Float[Tensor, "_ _ ..."] | NDArray[Any] | Source
"""Images in [-1, 1]: a tensor or array, a cohort, or any source of them."""

_SPLIT = 0x00D  # stream
_LOOKED_AT = 8  # images that a classifier is shown twice
_MISSING = {
    "generator": "a diffusion model: generator=...",
    "autoencoder": "a variational autoencoder: autoencoder=...",
    "classifier": "a classifier: classifier=...",
    "ensemble": "two or more classifiers: ensemble=(...)",
    "features": "a function of images to features, or a classifier that has some: features=... or classifier=...",
}


@dataclass(frozen=True)
class Fitted:
    """A detector fitted and calibrated; called with images it is a gate (`cfx.core.gates`).

    Attributes:
        detector: The detector and its settings.
        scorer: What it became.
        tools: The networks it asks.
        calibration: Scores of the calibration images, ascending, float64.
        shape: Shape `(c, *space)` of the images it was fitted to.
        level: Share of in-distribution images that may be called out.
        batch_size: Images worked on together.
    """

    detector: Detector
    scorer: Scorer
    tools: Tools
    calibration: Float[Tensor, " m"]
    shape: tuple[int, ...]
    level: float = 0.05
    batch_size: int = 64

    def __call__(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, " n"]:
        """The p-value of every image, where the images are; errors as `score`."""
        return self.score(x).p.to(x.device)

    def score(self, x: Images) -> OodScores:
        """Score images.

        Args:
            x: Images in [-1, 1], a tensor or array, or a cohort or source of such.

        Raises:
            InputError: no images, or images that are not finite, not in [-1, 1] or not of the shape it was fitted to.
        """
        source = as_source(x, "x")
        if tuple(source.shape) != self.shape:
            wanted, came = (" x ".join(map(str, of)) for of in (self.shape, source.shape))
            raise InputError(f"x: expected images of the shape it was fitted to, {wanted}, got {came}")
        rows = torch.arange(len(source))
        parts = [self._scored(source[at].x, at) for at in rows.split(self.batch_size) if len(at)]
        return OodScores.cat(parts) if parts else self.blank()

    def as_classifier(self) -> Score:
        """The detector as a classifier of in (0) and out (1), for an audit of what its score relies on.

        Its logits are (0, (score - threshold) / deviation) with the threshold of `level` and the standard deviation of
        the calibration scores, in which effects are measured.

        Raises:
            InputError: calibration scores that do not differ.
        """
        most = float(self.calibration[-1])  # where the level asks for more images than there are
        threshold = min(float(conformal_quantile(self.calibration, self.level)), most)
        return Score(lambda x: self.score(x).score, threshold, float(self.calibration.std(correction=0)))

    def blank(self) -> OodScores:
        """A result of no rows."""
        return OodScores.blank(
            0, {}, detector=self.detector.name, level=self.level, calibrated=len(self.calibration), statistics={}
        )

    def _scored(self, x: Float[Tensor, "b c *space"], row: Tensor) -> OodScores:
        """The result of one batch."""
        start = time.perf_counter()
        found, spent = _asked(self.scorer, x, self.tools)
        p = conformal_p_values(self.calibration, found.score.double().cpu())
        return OodScores(
            score=found.score.float().cpu(), p=p, row=row, detector=self.detector.name, level=self.level,
            verdict=torch.where(p <= self.level, int(Membership.OUT), int(Membership.IN)),
            seconds=torch.full((len(x),), (time.perf_counter() - start) / len(x)), calibrated=len(self.calibration),
            map=None if found.map is None else found.map.float().cpu(),
            statistics={name: value.float().cpu() for name, value in found.statistics.items()},
            **{f"nfe_{kind}": getattr(spent, kind).cpu() for kind in Spent.KINDS},
        )  # fmt: skip


def fit(
    cohort: Images,
    detector: Detector | str = "denoising",
    *,
    generator: Generative | None = None,
    autoencoder: nn.Module | None = None,
    classifier: Classifier | None = None,
    ensemble: Sequence[Classifier] = (),
    features: Features | None = None,
    calibration: Images | float = 0.5,
    level: float = 0.05,
    seed: int = 0,
    batch_size: int = 64,
    device: torch.device | None = None,
) -> Fitted:
    """Fit a detector to in-distribution images and calibrate it on others.

    Args:
        cohort: In-distribution images, none of them in the training of the networks; labels where the detector asks
            for classes.
        detector: Name of a detector (`cfx.ood.DETECTORS`), or one with settings of its own.
        generator: Diffusion model, for detectors that denoise.
        autoencoder: Variational autoencoder, for detectors that reconstruct.
        classifier: Classifier, for detectors of confidence.
        ensemble: Classifiers trained alike, for an ensemble.
        features: From images to a vector each, or to several maps, for detectors of distance; by default what the last
            linear layer of `classifier` reads.
        calibration: In-distribution images of other subjects, whose scores the p-values are made of; or the share of
            the subjects of `cohort` that is set aside for it.
        level: Share of in-distribution images that may be called out.
        seed: Seed of all randomness.
        batch_size: Images worked on together; does not change a score.
        device: Where to work; by default where the networks are.

    Raises:
        InputError: fewer than two images to fit to or none to calibrate on, images of which no two differ, a subject in
            both, a network that the detector needs and that is not there, a share or level outside (0, 1), or images
            that are not finite, not in [-1, 1], or of other shapes.
    """
    made = build_detector(detector) if isinstance(detector, str) else detector
    _check_given(made, generator, ensemble, batch_size)
    _check_level("level", level)
    place = device or device_of(generator, autoencoder, classifier, *ensemble, features) or torch.device("cpu")
    if features is None and classifier is not None and "features" in made.needs:
        features = Penultimate(classifier)
    tools = Tools(
        generator, None if autoencoder is None else as_vae(autoencoder),
        None if classifier is None else Judge(classifier, device=place),
        tuple(Judge(member, f"ensemble[{k}]", place) for k, member in enumerate(ensemble)), features, place,
    )  # fmt: skip
    if lacking := [name for name in made.needs if not getattr(tools, name)]:
        raise InputError(f"{made.name}: expected {_MISSING[lacking[0]]}, got none")
    held_out = calibration if isinstance(calibration, float | int) else as_source(calibration, "calibration")
    learn, held = _parts(as_source(cohort, "cohort"), held_out, seed)
    _check_steady(made, learn, tools)
    scorer = made.fit(Learn(learn, tools, seed, batch_size))
    scores = [_asked(scorer, x, tools)[0].score.double().cpu() for x in held.x.split(batch_size)]
    return Fitted(made, scorer, tools, _finite(torch.cat(scores)).sort().values, learn.shape, level, batch_size)


def score(
    x: Images,
    cohort: Images,
    detector: Detector | str = "denoising",
    **networks: object,
) -> OodScores:
    """Score images against in-distribution ones in one call: `fit(cohort, detector, **networks).score(x)`.

    Args:
        x: Images to score.
        cohort: In-distribution images; half of their subjects calibrate.
        detector: As in `fit`.
        networks: The other arguments of `fit`.

    Raises:
        InputError: as `fit` and `Fitted.score`.
    """
    return fit(cohort, detector, **networks).score(x)  # type: ignore[arg-type]


def _asked(scorer: Scorer, x: Float[Tensor, "b c *space"], tools: Tools) -> tuple[Scored, Spent]:
    """What a scorer says of a batch, and what it spent."""
    check_images(x, "x")
    ask = Ask(x, tools)
    with at_rest(*tools.networks), torch.no_grad():
        found = scorer(ask)
    return found, ask.spent


def _parts(cohort: Source, calibration: Source | float, seed: int) -> tuple[Cohort, Cohort]:
    """Images to fit to and images to calibrate on, of different subjects, in memory."""
    if isinstance(calibration, float | int):
        _check_level("calibration", calibration)
        names = list(dict.fromkeys(subject_names(cohort)))
        order = permutation(len(names), seed=seed, stream=_SPLIT).tolist()
        held = {names[k] for k in order[: round(calibration * len(names))]}
        out = torch.tensor([name in held for name in subject_names(cohort)], dtype=torch.bool)
        learn, other = cohort[~out], cohort[out]
    else:
        learn, other = _whole(cohort), _whole(calibration)
        if both := _shared(learn, other):
            raise InputError(f"calibration: expected other subjects than those of cohort, got both in {both[:4]}")
    if other.shape != learn.shape:
        raise InputError(f"calibration: expected images of the shape of cohort, {learn.shape}, got {other.shape}")
    _check_rows(learn, other)
    return learn, other


def _shared(learn: Cohort, held: Cohort) -> list[str]:
    """Subjects of both; of images that are numbered on either side, and so without names, those that are the same."""
    if not all(c.ids == tuple(map(str, range(len(c)))) and SUBJECT not in c.covariates for c in (learn, held)):
        return sorted(set(subject_names(learn)) & set(subject_names(held)))
    seen = {image.numpy().tobytes() for image in learn.x.cpu()}
    return [name for name, image in zip(held.ids, held.x.cpu(), strict=True) if image.numpy().tobytes() in seen]


def _whole(source: Source) -> Cohort:
    """All images of a source, in memory."""
    return source if isinstance(source, Cohort) else source[torch.arange(len(source))]


def _check_rows(learn: Cohort, held: Cohort) -> None:
    """Refuse too few images, or the same one over and over."""
    if len(learn) < 2:
        raise InputError(f"cohort: expected at least two images to fit to, got {len(learn)}")
    if not len(held):
        raise InputError("calibration: expected at least one image to calibrate on, got none")
    if bool((learn.x == learn.x[:1]).all()):
        raise InputError("cohort: expected images that differ, got the same image in every row")


def _check_given(detector: object, generator: object, ensemble: object, batch_size: int) -> None:
    """Refuse what is no detector, no generator, no several classifiers, or no size of a batch."""
    if not isinstance(detector, Detector) or isinstance(detector, type):
        raise InputError(f"detector: expected a name or one with settings, such as Knn(k=5), got {detector!r:.60}")
    if generator is not None and not isinstance(generator, Generative):
        raise InputError(
            "generator: expected a diffusion model with its schedule, Denoiser(network, schedule) of "
            f"cfx.core.denoiser, or what cfx.load opens, got {type(generator).__name__}"
        )
    if not isinstance(ensemble, list | tuple):
        raise InputError(f"ensemble: expected a list of classifiers, got {type(ensemble).__name__}")
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")


@torch.no_grad()
def _check_steady(detector: Detector, learn: Cohort, tools: Tools) -> None:
    """Refuse classifiers that the detector asks and that give one image two answers, on a few images.

    Warns:
        CfxWarning: outputs that look like probabilities, or images in [0, 1] where the generator knows [-1, 1].
    """
    asked = (tools.classifier if "classifier" in detector.needs else None, *tools.ensemble)
    x = learn.x[:_LOOKED_AT].to(tools.device)
    said = [of_range(x, tools.generator, tools.device) if "generator" in detector.needs else None]
    for judge in asked if "ensemble" in detector.needs else asked[:1]:
        if judge is not None:
            with judge.at_rest():
                logits = judge.check_company(x)
                with suppress(InputError):  # one without a gradient may be asked, but not be pushed to see its range
                    said.append(of_outputs(judge, x, logits))
    for words in said:
        if words is not None:
            warnings.warn(words, CfxWarning, stacklevel=3)


def _check_level(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(f"{name}: expected a number in (0, 1), got {value}")


def _finite(scores: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Calibration scores.

    Raises:
        InputError: some are not finite, so that no p-value can be made of them.

    Warns:
        CfxWarning: all are the same.
    """
    if odd := int((~scores.isfinite()).sum()):
        raise InputError(f"calibration: expected finite scores, got {odd} of {len(scores)} that are not")
    if len(scores) > 1 and bool((scores == scores[0]).all()):
        warnings.warn(
            f"calibration: all {len(scores)} images got one score, so that every image will be in; does the network "
            "give the same answer to every image?",
            CfxWarning,
            stacklevel=3,
        )
    return scores
