"""A user's classifier as the engine sees it: class probabilities, the margin of a target class, and its gradient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.errors import InputError
from cfx.core.values import Cohort


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
    """A regressor as a classifier of whether its value is near one to be reached (no 0, yes 1).

    The logit is (tolerance - |value(x) - goal|) / tolerance * 4, so it is positive exactly within the tolerance and 4
    at the goal itself. Explain it with `target=1`. An edit that overshoots the tolerance counts as a miss, which the
    search for a least strength cannot tell from one that falls short: give a tolerance that a step can hit.

    Args:
        regressor: Images to values `(b,)` or `(b, 1)`.
        goal: Value to reach.
        tolerance: How near is near enough, in the units of the value.

    Raises:
        InputError: a tolerance that is not positive.
    """

    def __init__(self, regressor: nn.Module, goal: float, tolerance: float) -> None:
        """See the class."""
        super().__init__()
        if not tolerance > 0:
            raise InputError(f"tolerance: expected a positive number, got {tolerance}")
        self.regressor, self.goal, self.tolerance = regressor, goal, tolerance

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b 1"]:
        """The logit of being near.

        Raises:
            InputError: the regressor does not return one value an image.
        """
        value: Tensor = self.regressor(x)
        if value.numel() != len(x):
            raise InputError(f"regressor: expected one value an image, got shape {tuple(value.shape)}")
        return 4 * (1 - (value.reshape(-1, 1) - self.goal).abs() / self.tolerance)


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

    @torch.no_grad()
    def probabilities(self, x: Float[Tensor, "b c *space"], batch: int = 256) -> Float[Tensor, "b k"]:
        """Softmax of `logits`, computed `batch` images at a time."""
        return torch.cat([self.logits(part).softmax(1) for part in x.split(batch)])

    @torch.no_grad()
    def margin(self, x: Float[Tensor, "b c *space"], target: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Target logit minus the best other: positive where the target wins."""
        return margin_of(self.logits(x), target)

    def gradient(self, x: Float[Tensor, "b c *space"], target: Int[Tensor, " b"]) -> Float[Tensor, "b c *space"]:
        """Gradient of the margin with respect to the image.

        Raises:
            InputError: the output does not depend on the image differentiably.
        """
        return self._gradient(x, lambda logits: margin_of(logits, target))

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
        InputError: no class labels, or a class of which no reference image is recognised.
    """
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
