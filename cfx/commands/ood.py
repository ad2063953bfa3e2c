"""One run of out-of-distribution detection: images in, a folder with their scores, a page and a summary out."""

import math
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from cfx.atlas import Atlas
from cfx.commands.filling import Filling, FillingConfig, asked, first, lines
from cfx.commands.networks import DetectorConfig, arguments, opened_all, prints
from cfx.core.cohort import Source, spread, subject_names
from cfx.core.conformal import chance_of_so_many
from cfx.core.errors import CfxWarning, InputError, heard
from cfx.core.statistics import wilson_interval
from cfx.data import open_cohort
from cfx.display.catalogue import Metric, register
from cfx.models.gate import OUT
from cfx.models.running import BATCH
from cfx.ood import Fitted, Membership, OodScores, build_detector, fit
from cfx.ood.detector import Detector
from cfx.report.ood.page import Calibrated, ood_page
from cfx.runtime.config import RunConfig
from cfx.runtime.files import digest
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.processes import make_accelerator
from cfx.runtime.provenance import source_print
from cfx.runtime.shares import is_main, together

if TYPE_CHECKING:
    from accelerate import Accelerator

_LOOKED_AT = 32  # images in both sources that are compared
SHOWN = (
    "n", "out_share", "out", "more_than_chance_p", "discoveries", "level", "calibrated", "nfe_unet_forward",
    "nfe_autoencoder", "nfe_classifier", "nfe_features", "seconds_per_image",
)  # fmt: skip
"""What the console shows of a summary."""
register(
    Metric("out_share", "out of distribution", "Share of the images whose p-value is at most the level."),
    Metric("out", "images out", "How many these are.", "", ".0f"),
    Metric("discoveries", "out, all at once", "Images out by Benjamini and Hochberg at the level.", "", ".0f"),
    Metric(
        "more_than_chance_p",
        "p of so many by chance",
        "Probability that at least so many of as many in-distribution images would be out.",
        "",
        ".2g",
    ),
    Metric("calibrated", "calibrated on", "In-distribution images that the p-values are made of.", "", ".0f"),
    Metric("nfe_autoencoder", "autoencoder passes", "Passes through encoder or decoder an image.", "lower", ".3g"),
    Metric("nfe_features", "feature passes", "Passes through the feature extractor an image.", "lower", ".3g"),
)


class OodConfig(DetectorConfig, FillingConfig, RunConfig):
    """Which images to score, against which, with which detector."""

    level: float = Field(default=0.05, gt=0, lt=1)
    """Share of in-distribution images that may be called out."""


def built(name: str, settings: Mapping[str, Any]) -> Detector:
    """A detector with settings as YAML has them; lists, which is all that YAML has, become tuples."""
    return build_detector(name, **{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


@in_its_folder
def ood_run(config: OodConfig, words: str = "") -> dict[str, Any]:
    """Score images and write `atlas.zarr`, `report.html`, `summary.json` and `config.yaml`.

    Under `accelerate launch` the processes share the images by whole atlas shards. Each finished batch is written at
    once, so the same command goes on with an interrupted run.

    Args:
        config: What to score.
        words: The command line, for the record.

    Returns:
        The flat figures of `summary.json`.

    Raises:
        InputError, CheckpointError, AtlasError: as `cfx.ood.fit`, `open_network` and `Atlas`.
    """
    with heard() as warned:
        run = _Run(config, make_accelerator(), words)
        atlas = run.filled()
        found = run.summary(atlas)
        run.folder.summary(found)
        if is_main():
            atlas.note(warnings=warned)
            run.folder.page(ood_page(atlas, run.calibrated, config.name, warned))
    return found


class _Run:
    """The objects of a run, loaded and checked once."""

    def __init__(self, config: OodConfig, accelerator: "Accelerator", words: str) -> None:
        self.config, self.accelerator, self.words = config, accelerator, words
        self.folder, self.source = RunFolder(config.folder), asked(config)
        self.networks = opened_all(config, accelerator.device)
        self.reference, self.held = references(config)
        check_apart(self.source, self.reference)

    @cached_property
    def fitted(self) -> Fitted:
        """The detector, fitted and calibrated; the same in every process."""
        config, place = self.config, self.accelerator.device
        return fitted_to(
            config, self.networks, self.reference, self.held, place, level=config.level, seed=config.seed,
            batch_size=config.batch_size,
        )  # fmt: skip

    @property
    def calibrated(self) -> Calibrated:
        """What was calibrated on what."""
        held = self.held if isinstance(self.held, float) else len(self.held)
        m = len(self.fitted.calibration)
        n = len(self.reference) - m if isinstance(held, float) else len(self.reference)
        return Calibrated(self.fitted.calibration, n, dict(self.config.settings))

    @property
    def prints(self) -> dict[str, str]:
        """What the rows are made of."""
        held = str(self.held) if isinstance(self.held, float) else source_print(self.held)
        images = {"images": source_print(self.source), "reference": source_print(self.reference), "calibration": held}
        return images | prints(self.config, self.networks) | {"settings": repr(self.fitted.detector)}

    def filled(self) -> Atlas[OodScores]:
        """The atlas with all rows."""
        with together(self.accelerator):
            fitted = self.fitted
        return Filling(
            self.folder, self.config, self.source, lambda: fitted.score(self.source[[0]])[:0],
            lambda cohort, rows: fitted.score(cohort).replace(row=torch.tensor(rows)), self.prints, self.words,
            self.accelerator,
        ).filled(OodScores)  # fmt: skip

    def summary(self, atlas: Atlas[OodScores]) -> dict[str, Any]:
        """The figures of all rows."""
        return summarise(atlas.read(images=False), self.config)


def summarise(scores: OodScores, config: OodConfig) -> dict[str, Any]:
    """The figures of a run by name: shares with `_low` and `_high` of their 95 % interval."""
    n, out = len(scores), int((scores.verdict == int(Membership.OUT)).sum())
    low, high = wilson_interval(out / n, n)
    nfe = {name: float(value.double().mean()) for name, value in vars(scores).items() if name.startswith("nfe_")}
    return {
        "n": n, "out": out, "out_share": out / n, "out_share_low": low, "out_share_high": high,
        "detector": scores.detector, "level": scores.level, "calibrated": scores.calibrated,
        "more_than_chance_p": chance_of_so_many(out, n, scores.calibrated, scores.level),
        "discoveries": int(scores.discoveries(scores.level).sum()), "seed": config.seed,
        "p_median": float(scores.p.median()), "seconds_per_image": float(scores.seconds.double().mean()), **nfe,
    }  # fmt: skip


def references(config: DetectorConfig) -> tuple[Source, Source | float]:
    """In-distribution images, and those to calibrate on or the share that is."""
    held = config.calibration
    return open_cohort(config.reference), held if isinstance(held, float) else open_cohort(held)


def fitted_to(
    config: DetectorConfig, networks: dict[str, nn.Module], reference: Source, held: Source | float,
    device: torch.device, *, level: float = OUT, seed: int = 0, batch_size: int = BATCH,
) -> Fitted:  # fmt: skip
    """The detector of a configuration, fitted and calibrated.

    Raises:
        InputError: as `cfx.ood.fit`.

    Warns:
        CfxWarning: so few calibration images that no p-value can reach the level.
    """
    found = fit(
        reference, built(config.detector, config.settings), calibration=held, level=level, seed=seed,
        batch_size=batch_size, device=device, **arguments(networks),
    )  # fmt: skip
    m = len(found.calibration)
    if level * (m + 1) < 1:
        warnings.warn(
            f"calibration: {m} images make no p-value below {1 / (m + 1):.2g}, so that at level {level:g} "
            f"nothing can be out; give at least {math.ceil(1 / level - 1e-9) - 1} or raise `level`",
            CfxWarning,
            stacklevel=2,
        )
    return found


def gate_of(config: DetectorConfig, source: Source, device: torch.device) -> tuple[Fitted, str]:
    """A gate of a configuration for such images, and a fingerprint of what it was made of.

    Raises:
        InputError, CheckpointError: as `cfx.ood.fit` and `open_network`.

    Warns:
        CfxWarning: as `check_apart` and `fitted_to`.
    """
    networks, (reference, held) = opened_all(config, device), references(config)
    check_apart(source, reference)
    images = ",".join(source_print(of) for of in (reference, held) if not isinstance(of, float))
    made = {"detector": repr(built(config.detector, config.settings)), "held": str(config.calibration)}
    found = fitted_to(config, networks, reference, held, device)
    return found, digest(made | {"images": images} | prints(config, networks))[:16]


def check_apart(source: Source, reference: Source) -> None:
    """Say where images to score are among the in-distribution ones.

    Warns:
        CfxWarning: an image of the same name is the same image.
    """
    theirs = {name: i for i, name in enumerate(reference.ids)}
    both = [(i, theirs[name]) for i, name in enumerate(source.ids) if name in theirs]
    some = [both[k] for k in spread(len(both), _LOOKED_AT).tolist()] if both else []
    same = [source.ids[i] for i, j in some if _equal(source[[i]].x, reference[[j]].x)]
    if same:
        warnings.warn(
            f"reference: images to score are among those fitted to or calibrated on ({', '.join(same[:4])}); their "
            "p-values say nothing. Give images of other subjects",
            CfxWarning,
            stacklevel=2,
        )


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def looked(config: OodConfig, data: Source, networks: Mapping[str, nn.Module]) -> str:
    """What a run would do, in words, once all that it checks before the first image is right; for `cfx check`.

    Raises:
        InputError: images, reference, detector and networks that do not go together.
    """
    reference, held = references(config)
    source = first(config, data)
    check_apart(source, reference)
    detector = built(config.detector, config.settings)
    if lacking := [key for key in detector.needs if not arguments(dict(networks)).get(key)]:
        raise InputError(f"{config.detector}: expected {' and '.join(lacking)} in the configuration, got none")
    if tuple(source.shape) != tuple(reference.shape):
        raise InputError(f"data: expected images of {tuple(reference.shape)} as in reference, got {source.shape}")
    m = round(held * len(dict.fromkeys(subject_names(reference)))) if isinstance(held, float) else len(held)
    return f"{len(source)} images by {config.detector}, calibrated on {m} at level {config.level:g}"


CONFIG = OodConfig


def command(config: OodConfig, words: str) -> str:
    """Run, and say what came out."""
    text = "\n".join(lines(SHOWN, ood_run(config, words)))
    return f"{text}\n\nwrote {config.folder}/report.html, atlas.zarr, summary.json, config.yaml"
