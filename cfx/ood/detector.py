"""What a detector is given, and what it gives back: the one signature all of them have.

A detector is fitted to in-distribution images and becomes a scorer. It asks the user's networks through an `Ask`,
which counts every evaluation for the row it was made for. A score depends on its image alone, whatever stands beside it
in a batch: noise, masks and patterns are drawn once, from the seed, and are the same for every image. Thresholds and
p-values are not its business: `cfx.ood.fit` makes them of other images for every detector alike.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.cohort import Cohort
from cfx.core.denoiser import Generative, Posterior
from cfx.core.errors import InputError
from cfx.core.meter import Meter
from cfx.core.outputs import tensor_of
from cfx.core.schedule import Time
from cfx.models.judge import Judge
from cfx.models.running import ask, at_rest

Features = Callable[[Tensor], Tensor | Sequence[Tensor]]
"""Images `(b, c, *space)` to one vector each, or to several maps."""


class Spent(Meter):
    """Evaluations spent on each row.

    Attributes:
        autoencoder: Passes through an encoder or a decoder.
        features: Passes through a feature extractor.
    """

    KINDS = (*Meter.KINDS, "autoencoder", "features")

    autoencoder: Int[Tensor, " n"]
    features: Int[Tensor, " n"]


@dataclass(frozen=True)
class Tools:
    """The user's networks; a detector says which of them it `needs`.

    Attributes:
        generator: Diffusion model.
        autoencoder: Variational autoencoder (`cfx.models.autoencoder.Vae`).
        classifier: Classifier.
        ensemble: Classifiers of the same classes, trained alike.
        features: From images to a vector each, or to several maps.
        device: Where it is worked.
    """

    generator: Generative | None = None
    autoencoder: nn.Module | None = None
    classifier: Judge | None = None
    ensemble: tuple[Judge, ...] = ()
    features: Features | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def networks(self) -> tuple[object, ...]:
        """All that may have a state."""
        judges = [judge.classifier for judge in (self.classifier, *self.ensemble) if judge is not None]
        return (self.generator, self.autoencoder, self.features, *judges)


class Ask:
    """One batch of images and the networks, every evaluation counted. `rows` is the row of each image handed in.

    A call may hold some rows only, or several versions of one; without `rows` it is about all rows, in order.

    Attributes:
        x: Images `(b, c, *space)` in [-1, 1], where it is worked.
        tools: The networks.
        spent: The evaluations of each row so far.
    """

    def __init__(self, x: Float[Tensor, "b c *space"], tools: Tools) -> None:
        """Start with nothing spent."""
        self.x, self.tools, self.spent = x.to(tools.device), tools, Spent(len(x), tools.device)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.x)

    def posterior(self, x_t: Float[Tensor, "m c *space"], t: Time, rows: Int[Tensor, " m"] | None = None) -> Posterior:
        """The generator's posterior of noised images, without a label."""
        self._count(("unet_forward",), rows)
        assert self.tools.generator is not None
        return self.tools.generator(x_t, t)

    def encode(self, x: Float[Tensor, "m c *space"], rows: Int[Tensor, " m"] | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the autoencoder's posterior; a deviation of 0 where it gives a code alone.

        Raises:
            InputError: it cannot take these images, or returns something else.
        """
        self._count(("autoencoder",), rows)
        found = ask(self._autoencoder.encode, x, name="autoencoder", device=self.tools.device)
        return _posterior(found, len(x))

    def decode(self, z: Float[Tensor, "m z *coarse"], rows: Int[Tensor, " m"] | None = None) -> Tensor:
        """The images of the autoencoder's latents.

        Raises:
            InputError: it cannot take these latents, or returns no images of the shape of the batch's.
        """
        self._count(("autoencoder",), rows)
        found = ask(self._autoencoder.decode, z, name="autoencoder", device=self.tools.device)
        images = tensor_of(found, "autoencoder")
        if images.shape[1:] != self.x.shape[1:]:
            wanted, came = tuple(self.x.shape[1:]), tuple(images.shape[1:])
            raise InputError(f"autoencoder: expected decode to give images of shape {wanted}, got {came}")
        return images

    def logits(self, x: Float[Tensor, "m c *space"], rows: Int[Tensor, " m"] | None = None) -> Float[Tensor, "m k"]:
        """Logits of the classifier."""
        self._count(("classifier",), rows)
        return self._classifier.logits(x)

    def slope(
        self,
        x: Float[Tensor, "m c *space"],
        score: Callable[[Float[Tensor, "m k"]], Float[Tensor, " m"]],
        rows: Int[Tensor, " m"] | None = None,
    ) -> Float[Tensor, "m c *space"]:
        """Gradient, to each image, of a score of the classifier's logits."""
        self._count(("classifier", "classifier_backward"), rows)
        return self._classifier.slope(x, score)

    def member(self, k: int, x: Float[Tensor, "m c *space"], rows: Int[Tensor, " m"] | None = None) -> Tensor:
        """Logits of the k-th network of the ensemble."""
        self._count(("classifier",), rows)
        return self.tools.ensemble[k].logits(x)

    def features(self, x: Float[Tensor, "m c *space"], rows: Int[Tensor, " m"] | None = None) -> list[Tensor]:
        """The maps `(m, d, *space)`, or vectors `(m, d)`, of the feature extractor; one in a list where it has one.

        Raises:
            InputError: it cannot take these images, or returns something else than tensors.
        """
        self._count(("features",), rows)
        assert self.tools.features is not None
        found = ask(self.tools.features, x, name="features", device=self.tools.device)
        layers = found if isinstance(found, list | tuple) else [found]
        if not layers:
            raise InputError("features: expected a vector or a map an image, got an empty list")
        return [tensor_of(layer, "features") for layer in layers]

    @property
    def _autoencoder(self) -> Any:  # noqa: ANN401 - a module with encode and decode
        assert self.tools.autoencoder is not None
        return self.tools.autoencoder

    @property
    def _classifier(self) -> Judge:
        assert self.tools.classifier is not None
        return self.tools.classifier

    @contextmanager
    def some(self, rows: Int[Tensor, " m"]) -> Iterator["Ask"]:
        """Some (distinct) rows as a batch of their own, whose evaluations are counted here as well."""
        part = Ask(self.x[rows], self.tools)
        yield part
        for kind in Spent.KINDS:
            getattr(self.spent, kind).index_add_(0, rows, getattr(part.spent, kind))

    def _count(self, kinds: Sequence[str], rows: Int[Tensor, " m"] | None) -> None:
        every = torch.arange(len(self), device=self.x.device) if rows is None else rows
        for kind in kinds:
            self.spent.count(kind, every)


def _posterior(found: object, n: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation in what `encode` gave for n images; rows of a lone tensor are codes, not the two of them."""
    pair = (found, torch.zeros_like(found)) if isinstance(found, Tensor) else found
    if isinstance(pair, tuple | list) and len(pair) >= 2 and all(isinstance(v, Tensor) for v in pair[:2]):
        mean, std = pair[:2]
        if len(mean) == n:
            return mean, std
    came = f"a code of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    raise InputError(f"autoencoder: expected encode to give mean and deviation, one row for each of {n}, got {came}")


@dataclass(frozen=True)
class Learn:
    """What a detector is fitted to.

    Attributes:
        cohort: In-distribution images, in memory.
        tools: The networks.
        seed: Seed of all randomness.
        batch_size: Images worked on together.
    """

    cohort: Cohort
    tools: Tools
    seed: int = 0
    batch_size: int = 64

    def of(self, rows: Int[Tensor, " m"]) -> "Learn":
        """The same with some of the images."""
        return replace(self, cohort=self.cohort[rows])

    def collect(self, of: Callable[[Ask], Float[Tensor, "b ..."]]) -> Float[Tensor, "n ..."]:
        """What is found of every image, some images at a time, networks at rest; on the CPU."""
        with at_rest(*self.tools.networks), torch.no_grad():
            return torch.cat([of(Ask(x, self.tools)).cpu() for x in self.cohort.x.split(self.batch_size)])


@dataclass(frozen=True)
class Scored:
    """What a scorer says of a batch.

    Attributes:
        score: Higher is more out of distribution.
        map: Where in the image, higher likewise, `(b, 1, *space)`; None where the detector does not say.
        statistics: What the score was made of, by name.
    """

    score: Float[Tensor, " b"]
    map: Float[Tensor, "b 1 *space"] | None = None
    statistics: Mapping[str, Float[Tensor, " b"]] = field(default_factory=dict)


@runtime_checkable
class Scorer(Protocol):
    """A fitted detector."""

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch; networks are at rest, and no gradient is kept unless it is asked for inside."""


@runtime_checkable
class Detector(Protocol):
    """One way to tell images that are out of distribution; a frozen dataclass of its settings.

    Attributes:
        name: What it is called.
        needs: The fields of `Tools` that it cannot do without.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    def fit(self, learn: Learn) -> Scorer:
        """The scorer of in-distribution images."""
