"""What the cases of the bench `faithful` are made of: simulated subjects, the disease in whole and in part, networks.

e_d = x(severity of the other class) - x         the disease
e_v = x(ventricles of the other class) - x       a part of it, the rest as it is
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cfx.core.broadcast import each
from cfx.core.cohort import Cohort
from cfx.core.errors import CfxError
from cfx.core.random import uniform
from cfx.data import BrainConfig, load_cohort
from cfx.data.brain import Part, Population
from cfx.models import load
from cfx.training import train
from cfx.training.config import check_config

_STREAM = 902

Region = Bool[Tensor, "n 1 *space"]


@dataclass(frozen=True)
class Case:
    """A classifier, or several of one family, and what is known of it.

    Attributes:
        name: What its rows are called.
        networks: The classifier; several where one alone would be luck.
        images: Images to explain, labelled.
        reference: Labelled images that set the typical margins.
        disease: The same subjects with the disease of the other class.
        towards: The class whose disease that is.
        lesion: Where they have lesions, now or then.
        truth: Where the classifier can read anything; None where that is not known.
    """

    name: str
    networks: Sequence[nn.Module]
    images: Cohort
    reference: Cohort
    disease: Float[Tensor, "n c *space"]
    towards: Int[Tensor, " n"]
    lesion: Region
    truth: Region | None = None


@dataclass(frozen=True)
class Stock:
    """What is shared by all cases, made once.

    Attributes:
        n: Images to explain.
        reference: Reference images.
        population: Seed of the subjects to explain; those of the reference and of training have the next two.
        grid: Keys of `BrainConfig` that all images share: `size` and `dims`.
        trained: Classifiers of the disease by name; the first serves the cases that need one.
        tag: A classifier of the tag, for the case that needs one.
        places: Pixels, and patches.
        untrained: Networks of every untrained family.
        few: Images that each of them explains.
        learn: Images that small networks are trained on.
        steps: Steps that they are trained for.
        folder: Where their runs are kept.
    """

    n: int
    reference: int
    population: int
    grid: Mapping[str, Any]
    trained: Mapping[str, nn.Module]
    tag: nn.Module | None
    places: int
    untrained: int
    few: int
    learn: int
    steps: int
    folder: Path

    def brains(self, who: str, **more: object) -> BrainConfig:
        """The subjects to explain (`asked`), of the `reference`, or to `learn` from."""
        n, seed = {"asked": (self.n, 0), "reference": (self.reference, 1), "learn": (self.learn, 2)}[who]
        return BrainConfig.model_validate({"n": n, "seed": self.population + seed} | dict(self.grid) | more)

    @cached_property
    def asked(self) -> Cohort:
        """Images to explain; `x_true` has the disease of the other class."""
        return load_cohort(self.brains("asked"))

    @cached_property
    def labelled(self) -> Cohort:
        """The reference."""
        return load_cohort(self.brains("reference"))

    @cached_property
    def lesion(self) -> Region:
        """Where the subjects to explain have lesions, in either class."""
        people = Population(config := self.brains("asked"))
        f = people.factors(torch.arange(config.n))
        return people.render(f).lesion | people.render(people.twins(f)).lesion

    @property
    def one(self) -> nn.Module:
        """A trained classifier of the disease."""
        return next(iter(self.trained.values()))

    def case(self, name: str, networks: Sequence[nn.Module], truth: Tensor | None = None, n: int | None = None) -> Case:
        """A case of plain images, all or the first `n`; `truth` is of every image, or `(1, *space)` of all alike."""
        images = self.asked[slice(0, n)]
        assert images.x_true is not None
        assert images.y is not None
        if truth is not None:
            truth = truth.expand(len(images), 1, *images.x.shape[2:])
        return Case(
            name, networks, images, self.labelled, images.x_true, 1 - images.y, self.lesion[: len(images)], truth
        )

    def small(self, name: str, cohort: Cohort, **network: object) -> nn.Module:
        """A small network trained on these labels; one that was trained in this folder before is taken up."""
        values = {
            "name": name,
            "out": str(self.folder / name),
            "network": {"name": "cnn", "channels": [16, 32, 48, 64]} | network,
            "validation": 0.0,
            "objective": {"kind": "classifier", "label_smoothing": 0.02},
            "optimizer": {"lr": 1e-3, "warmup": 20},
            "batch_size": min(32, len(cohort)),
            "steps": self.steps,
            "ema": 0.98,
        }
        result = train(check_config(values), cohort)
        if result.checkpoint is None:
            raise CfxError(f"{name}: interrupted at step {result.step} of {self.steps}; the same command resumes")
        return load(result.checkpoint)


def part_changed(config: BrainConfig, part: Part) -> Float[Tensor, "n 1 *space"]:
    """Subjects with one part of the disease as in the other class."""
    people = Population(config)
    f = people.factors(torch.arange(config.start, config.start + config.n))
    return people.render(people.partly(f, people.twins(f), part)).x


def only(config: BrainConfig, part: Part) -> Cohort:
    """Subjects of whom this part of the disease follows the label, and the other part a coin."""
    images = load_cohort(config)
    other: Part = "lesions" if part == "ventricles" else "ventricles"
    coin = each(tossed(images, config.seed) > 0, images.x)
    return images.replace(x=torch.where(coin, part_changed(config, other), images.x), x_true=None)


def marked(cohort: Cohort, pattern: Float[Tensor, "c *space"], seed: int) -> Cohort:
    """The same images, half of them, the new class 1, with this pattern where it is not 0; `x_true` are the others."""
    y = tossed(cohort, seed)
    drawn = torch.where(pattern != 0, pattern, cohort.x)
    has = each(y > 0, cohort.x)
    x, x_true = torch.where(has, drawn, cohort.x), torch.where(has, cohort.x, drawn)
    return cohort.replace(x=x, x_true=x_true, y=y, classes=["plain", "marked"])


def tossed(cohort: Cohort, seed: int) -> Int[Tensor, " n"]:
    """A label that a coin decides."""
    return (uniform((1,), seed=seed, row=torch.arange(len(cohort)), stream=_STREAM)[:, 0] < 0.5).long()
