"""The one gate between a user's classifier and the rest: class logits, the margin of a target class, its gradient.

Every room asks a classifier here and nowhere else, so that its device, its mode, what it does to images in place, and
the shape of its answers are settled once (`cfx.models.running`).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.errors import InputError
from cfx.models.running import BATCH, ask, at_rest, columns, in_batches
from cfx.models.wrappers import Finding, Near, Score

Classifier = Callable[[Tensor], Tensor]
"""Images `(b, c, *space)` to logits: a module of any kind, or a function."""

_ROUNDING = 1e-3  # two answers to one image may differ by this, relative to 1 + |logit|
_COMPANY = 1e-2  # and by this beside other images, in half precision too
_SHOWN = 8  # images that are shown together before some of them are shown again
_TWO_ANSWERS = (
    "expected the same answer whenever an image is shown, got two that differ; does it draw at random in evaluation "
    "mode too (F.dropout without training=self.training)?"
)


class Judge:
    """A classifier with one convention: two or more columns of logits, largest wins.

    Args:
        classifier: From images to `(b,)` or `(b, 1)` (binary logit) or `(b, k)` logits; for a lone image the row may
            be squeezed away.
        name: Argument name used in errors.
        device: Where a classifier without parameters of its own works; by default where its images are.

    Raises:
        InputError: a checkpoint of independent findings itself, not one of its findings.
    """

    def __init__(self, classifier: Classifier, name: str = "classifier", device: torch.device | None = None) -> None:
        """See the class."""
        if getattr(classifier, "multilabel", False) is True:
            raise InputError(
                f"{name}: expected exclusive classes, got a checkpoint of independent findings (multilabel); wrap the "
                "one that is asked for in Finding(classifier, number); in a file, beside its path: output: {kind: "
                "multilabel, finding: number}"
            )
        self.classifier = classifier
        self.name = name
        self.device = device

    @property
    def ordered(self) -> bool:
        """Whether the classes are ranges of one value, in order, so that an edit can go too far."""
        return isinstance(self.classifier, Near)

    @property
    def scores(self) -> bool:
        """Whether its two answers are a low and a high score, and no classes."""
        return isinstance(self.classifier, Score)

    def speaks(self, generator: object, classes: int) -> bool:
        """Whether a generator's labels are this classifier's classes, of which there are so many."""
        return getattr(generator, "classes", None) == classes and not (self.ordered or self.scores)

    def labels(self, y: Tensor | None) -> Int[Tensor, " n"] | None:
        """The classes that this classifier should give to images with such labels; None where they do not say it.

        Args:
            y: Labels as in `Cohort`: one class an image, or 0/1 for each of several findings, of which a `Finding` is
                one.
        """
        if y is None or self.ordered or self.scores:
            return None
        if y.ndim == 1:
            return y.long()
        k = self.classifier.k if isinstance(self.classifier, Finding) else -1
        return y[:, k].long() if 0 <= k < y.shape[1] else None

    def is_about(self, y: Tensor | None) -> bool:
        """Whether class names and labels of images are those of its classes: not of several findings, nor of a value.

        Args:
            y: Labels as in `Cohort`; of images without any, names beside a `Finding` may be those of findings.
        """
        if self.ordered or self.scores:
            return False
        return not isinstance(self.classifier, Finding) if y is None else y.ndim == 1

    def check_labels(self, x: Float[Tensor, "b c *space"], y: Tensor | None, name: str) -> None:
        """Refuse labels of several findings an image for a classifier with as many logits.

        Args:
            x: Images to see how many logits it has.
            y: Labels as in `Cohort`.
            name: What has them, used in errors.

        Raises:
            InputError: that is so.
        """
        if y is None or y.ndim != 2 or self.ordered or self.scores or bool((y.sum(1) == 1).all()):
            return
        k = columns(ask(self.classifier, x, name=self.name, device=self.device), len(x), self.name).shape[1]
        if k == y.shape[1] > 1:
            raise InputError(
                f"{self.name}: expected one finding, since {name}.y has labels of {k} findings an image, got {k} "
                "logits that would be taken for exclusive classes; wrap it in Finding(classifier, number); in a "
                "file, beside its path: output: {kind: multilabel, finding: number}"
            )

    def at_rest(self) -> AbstractContextManager[None]:
        """Evaluation mode and no parameter gradients inside; both restored after."""
        return at_rest(self.classifier)

    def logits(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k"]:
        """Logits of one batch with one column a class, where the images are; a binary logit l becomes (0, l).

        Raises:
            InputError: the classifier cannot take these images, or returns something else than logits.
        """
        out = ask(self.classifier, x, name=self.name, device=self.device)
        out = columns(out, len(x), self.name).to(x.device)
        return torch.cat([torch.zeros_like(out), out], 1) if out.shape[1] == 1 else out

    def answers(self, x: Float[Tensor, "n c *space"], batch: int = BATCH) -> Float[Tensor, "n k"]:
        """Logits of any number of images: `batch` at a time, at rest, without gradient; on the CPU."""
        with self.at_rest():
            return in_batches(self.logits, x, batch=batch, name=self.name)

    def probabilities(self, x: Float[Tensor, "n c *space"], batch: int = BATCH) -> Float[Tensor, "n k"]:
        """Softmax of `answers`."""
        return self.answers(x, batch).softmax(1)

    def margins(
        self, x: Float[Tensor, "n c *space"], target: Int[Tensor, " n"], batch: int = BATCH
    ) -> Float[Tensor, " n"]:
        """Target logit minus the best other, as `answers`."""
        return margin_of(self.answers(x, batch), target.cpu())

    @torch.no_grad()
    def margin(
        self, x: Float[Tensor, "b c *space"], target: Int[Tensor, " b"], source: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b"]:
        """Target logit minus the best other: positive where the target wins.

        With a source and ordered classes, only those on the source's side of the target count: positive where an edit
        that came from there has gone far enough, or too far.
        """
        return self._margin(self.logits(x), target, source)

    def gradient(
        self, x: Float[Tensor, "b c *space"], target: Int[Tensor, " b"], source: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c *space"]:
        """Gradient of the margin, as in `margin`, with respect to the image; errors as `slope`."""
        return self.slope(x, lambda logits: self._margin(logits, target, source))

    def log_gradient(self, x: Float[Tensor, "b c *space"], target: Int[Tensor, " b"]) -> Float[Tensor, "b c *space"]:
        """Gradient of log p(target) with respect to the image; errors as `slope`."""
        return self.slope(x, lambda logits: logits.log_softmax(1).gather(1, target[:, None])[:, 0])

    def slope(
        self, x: Float[Tensor, "b c *space"], score: Callable[[Float[Tensor, "b k"]], Float[Tensor, " b"]]
    ) -> Float[Tensor, "b c *space"]:
        """Gradient, with respect to each image, of a score of its logits.

        Raises:
            InputError: the output does not depend on the image differentiably, or no gradient can be had where this is
                called.
        """
        if torch.is_inference_mode_enabled():
            raise InputError(f"{self.name}: no gradient can be had inside torch.inference_mode(); leave inference_mode")
        with torch.enable_grad():
            x = x.detach().clone().requires_grad_(True)  # a copy: images made inside inference_mode cannot have one
            total = score(self.logits(x)).sum()
            if not total.requires_grad:
                raise InputError(f"{self.name}: expected logits with a gradient to the image, got detached ones")
            (g,) = torch.autograd.grad(total, x, allow_unused=True)
        if g is None:
            raise InputError(f"{self.name}: expected logits that depend on the image, got none that do")
        return g

    def check(self, x: Float[Tensor, "b c *space"], logits: Float[Tensor, "b k"]) -> None:
        """Make sure that images whose logits are known get the same ones again, and have a gradient.

        Raises:
            InputError: two answers to one image differ; or as `slope`.
        """
        again = self._with_gradient(x)
        # beside other images rounding may be coarser: what settles a suspicion is to ask the very same twice
        if _differ(logits, again) and _differ(again, self._with_gradient(x)):
            raise InputError(f"{self.name}: {_TWO_ANSWERS}")

    @torch.no_grad()
    def check_company(
        self, x: Float[Tensor, "b c *space"], logits: Float[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "m k"]:
        """Make sure that images get the same logits again, beside fewer others.

        Args:
            x: Images; a few are shown again.
            logits: What was said of all of them together, if it is known.

        Returns:
            What was said of the first images.

        Raises:
            InputError: two answers to one image differ, for nothing or for the images beside it, or are not finite.
        """
        x = x[:_SHOWN]
        logits = self.logits(x) if logits is None else logits[: len(x)]
        if not bool(torch.isfinite(logits).all()):
            raise InputError(f"{self.name}: expected finite logits, got NaN or infinity")
        few = x[: max(1, len(x) // 2)]
        again = self.logits(few)
        if not _differ(logits[: len(few)], again):
            return logits
        if _differ(again, self.logits(few)):
            raise InputError(f"{self.name}: {_TWO_ANSWERS}")
        if _differ(self.logits(x[:1]), self.logits(x[:2])[:1], _COMPANY):
            raise InputError(
                f"{self.name}: expected an answer to each image by itself, got one that depends on the images beside "
                "it; is there batch normalisation in training mode (call eval() on it), or a mean over the batch?"
            )
        return logits

    def _with_gradient(self, x: Tensor) -> Float[Tensor, "b k"]:
        """The logits that a gradient towards the least probable class is taken of."""
        seen: list[Tensor] = []

        def score(logits: Tensor) -> Tensor:
            seen.append(logits.detach())
            return margin_of(logits, logits.argmin(1))

        self.slope(x, score)
        return seen[0]

    def _margin(self, logits: Tensor, target: Tensor, source: Tensor | None) -> Tensor:
        if source is None or not self.ordered:
            return margin_of(logits, target)
        k = torch.arange(logits.shape[1], device=logits.device)
        passed = (k - target[:, None]) * (source - target)[:, None] < 0
        return margin_of(logits.masked_fill(passed, -torch.inf), target)


def _differ(a: Tensor, b: Tensor, tolerance: float = _ROUNDING) -> bool:
    return not torch.allclose(a.to(b), b, rtol=tolerance, atol=tolerance, equal_nan=True)


def margin_of(logits: Float[Tensor, "b k"], target: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Target logit minus the largest other logit."""
    chosen = logits.gather(1, target[:, None])[:, 0]
    others = logits.scatter(1, target[:, None], -torch.inf)
    return chosen - others.amax(1)
