"""A user's classifier as the engine sees it: class probabilities, the margin of a target class, and its gradient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError


class Finding(nn.Module):
    """One finding of a multi-label classifier as a classifier of its own (absent 0, present 1).

    Args:
        classifier: Images to logits `(b, k)`, one independent logit a finding.
        k: Which finding.
    """

    def __init__(self, classifier: nn.Module, k: int) -> None:
        """See the class."""
        super().__init__()
        self.classifier = classifier
        self.k = k

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b 1"]:
        """The logit of the finding.

        Raises:
            InputError: the classifier has no such finding.
        """
        out: Tensor = self.classifier(x)
        if not 0 <= self.k < out.shape[1]:
            raise InputError(f"k: expected a finding in 0 .. {out.shape[1] - 1}, got {self.k}")
        return out[:, self.k : self.k + 1]


class Near(nn.Module):
    """A regressor as a classifier of whether its value is near one to be reached (below 0, near 1, above 2).

    With u = (value - goal) / tolerance the logits are (-4 u, 4, 4 u): `near` wins exactly within the tolerance, by a
    margin of 4 (1 - |u|). Explain it with `target=1`, whichever side of the goal the images are on; 0 and 2 ask for a
    value that leaves the tolerance downwards or upwards. The classes are ordered, so a search measures an edit against
    the side it came from only (4 (1 + u) from below), and one that overshoots is a success of too great a strength;
    whether a result counts is decided by all three. A result is stable if half of the way outlives re-noising.

    At depth `typical` the value has to come within half the tolerance of the goal (`Near.TYPICAL`, a margin of 2; for 0
    and 2: leave the tolerance by half of it). No reference cohort is asked: how sure real images are of a class has no
    counterpart for a value. A generator's classes never stand for these three.

    Args:
        regressor: Images to values `(b,)` or `(b, 1)`.
        goal: Value to reach.
        tolerance: How near is near enough, in the units of the value.

    Raises:
        InputError: a tolerance that is not positive.
    """

    TYPICAL: ClassVar[float] = 2.0
    """Margin asked for at depth `typical`."""

    def __init__(self, regressor: nn.Module, goal: float, tolerance: float) -> None:
        """See the class."""
        super().__init__()
        if not tolerance > 0:
            raise InputError(f"tolerance: expected a positive number, got {tolerance}")
        self.regressor, self.goal, self.tolerance = regressor, goal, tolerance

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b 3"]:
        """The logits of being below, near and above.

        Raises:
            InputError: the regressor does not return one value an image.
        """
        value: Tensor = self.regressor(x)
        if value.numel() != len(x):
            raise InputError(f"regressor: expected one value an image, got shape {tuple(value.shape)}")
        u = (value.reshape(-1) - self.goal) / self.tolerance
        return 4 * torch.stack([-u, torch.ones_like(u), u], 1)


class Judge:
    """A classifier with one convention: two or more columns of logits, largest wins.

    Args:
        classifier: Any module from images to `(b,)` or `(b, 1)` (binary logit) or `(b, k)` logits.
        name: Argument name used in errors.
    """

    def __init__(self, classifier: nn.Module, name: str = "classifier") -> None:
        """See the class."""
        self.classifier = classifier
        self.name = name

    @property
    def ordered(self) -> bool:
        """Whether the classes are ranges of one value, in order, so that an edit can go too far."""
        return isinstance(self.classifier, Near)

    def logits(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k"]:
        """Logits with one column a class; a binary logit l becomes (0, l).

        Raises:
            InputError: the classifier cannot take these images, or returns something else than logits.
        """
        try:
            out = self.classifier(x)
        except InputError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise InputError(f"{self.name}: failed on images of shape {tuple(x.shape)}: {error}") from error
        if not isinstance(out, Tensor) or out.ndim not in (1, 2) or len(out) != len(x):
            came = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise InputError(f"{self.name}: expected logits of shape ({len(x)}, k), got {came}")
        out = out.as_subclass(Tensor).reshape(len(x), -1).float()
        return torch.cat([torch.zeros_like(out), out], 1) if out.shape[1] == 1 else out

    def speaks(self, generator: object, classes: int) -> bool:
        """Whether a generator's labels are this classifier's classes, of which there are so many."""
        return getattr(generator, "classes", None) == classes and not self.ordered

    @torch.no_grad()
    def probabilities(self, x: Float[Tensor, "b c *space"], batch: int = 256) -> Float[Tensor, "b k"]:
        """Softmax of `logits`, computed `batch` images at a time."""
        return torch.cat([self.logits(part).softmax(1) for part in x.split(batch)])

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
        """Gradient of the margin, as in `margin`, with respect to the image.

        Raises:
            InputError: the output does not depend on the image differentiably.
        """
        return self._gradient(x, lambda logits: self._margin(logits, target, source))

    def _margin(self, logits: Tensor, target: Tensor, source: Tensor | None) -> Tensor:
        if source is None or not self.ordered:
            return margin_of(logits, target)
        k = torch.arange(logits.shape[1], device=logits.device)
        passed = (k - target[:, None]) * (source - target)[:, None] < 0
        return margin_of(logits.masked_fill(passed, -torch.inf), target)

    def log_gradient(self, x: Float[Tensor, "b c *space"], target: Int[Tensor, " b"]) -> Float[Tensor, "b c *space"]:
        """Gradient of log p(target) with respect to the image; errors as `gradient`."""
        return self._gradient(x, lambda logits: logits.log_softmax(1).gather(1, target[:, None])[:, 0])

    def _gradient(self, x: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            total = score(self.logits(x)).sum()
            if not total.requires_grad:
                raise InputError(f"{self.name}: expected logits with a gradient to the image, got detached ones")
            (g,) = torch.autograd.grad(total, x, allow_unused=True)
        if g is None:
            raise InputError(f"{self.name}: expected logits that depend on the image, got none that do")
        return g

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Evaluation mode and no parameter gradients inside; both restored after."""
        with at_rest(self.classifier):
            yield


@contextmanager
def at_rest(module: object) -> Iterator[None]:
    """Put a module in evaluation mode without parameter gradients, and restore each part's own state after."""
    if not isinstance(module, nn.Module):
        yield
        return
    modes = [(m, m.training) for m in module.modules()]
    grads = [(p, p.requires_grad) for p in module.parameters()]
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for m, mode in modes:
            m.training = mode
        for p, grad in grads:
            p.requires_grad_(grad)


def margin_of(logits: Float[Tensor, "b k"], target: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Target logit minus the largest other logit."""
    chosen = logits.gather(1, target[:, None])[:, 0]
    others = logits.scatter(1, target[:, None], -torch.inf)
    return chosen - others.amax(1)


def typical_margins(
    classifier: nn.Module, reference: Cohort, *, device: torch.device | None = None
) -> Float[Tensor, " k"]:
    """How sure the classifier is of real images of each class: the lower decile of the margins it gives them.

    Not the median: half of all real images are below it, so half of all true counterfactuals would not count as valid.

    Args:
        classifier: Images to logits.
        reference: Labelled validation images, not those to be explained.
        device: Where the classifier lives.

    Raises:
        InputError: no class labels, a class of which no reference image is recognised, or a `Near`, whose typical
            margin is `Near.TYPICAL`.
    """
    if isinstance(classifier, Near):
        raise InputError("reference: expected none with Near, whose typical margin is fixed, got a cohort")
    if reference.y is None or reference.y.ndim != 1:
        raise InputError("reference: expected a cohort with one class label an image, got none")
    judge = Judge(classifier)
    with judge.at_rest(), torch.no_grad():
        logits = torch.cat([judge.logits(part.to(device)).cpu() for part in reference.x.split(256)])
    margins = []
    for k in range(logits.shape[1]):
        own = margin_of(logits, torch.full((len(logits),), k))[(reference.y == k) & (logits.argmax(1) == k)]
        if len(own) == 0:
            raise InputError(f"reference: expected images of class {k} that the classifier recognises, got none")
        margins.append(own.quantile(0.1))
    return torch.stack(margins)
