"""Two or three classes of images whose generator is known in closed form; classifiers that behave and that do not."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cfx.core.cohort import Cohort
from cfx.core.denoiser import Posterior
from cfx.core.random import normal
from cfx.core.schedule import Schedule, Time
from cfx.counterfactual import explain
from cfx.counterfactual.result import Counterfactuals

STD = 0.1
SHIFT = 0.35  # how far class means are apart at the middle of the blob


def blob(space: tuple[int, ...], centre: float = 0.0) -> Tensor:
    """A bump `(1, *space)` of height 1 around the middle (or beside it), exactly 0 away from it."""
    axes = [torch.linspace(-1, 1, n) for n in space]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return (1 - ((grid - centre) ** 2).sum(0) / 0.5).clamp_min(0)[None]


def checkers(space: tuple[int, ...]) -> Tensor:
    """+1 and -1 in turn: a pattern no class has."""
    return 1 - 2.0 * (sum(torch.meshgrid(*[torch.arange(n) for n in space], indexing="ij")) % 2)[None]


def class_means(space: tuple[int, ...], k: int = 2) -> Tensor:
    """Means `(k, 1, *space)`: two classes are a bump darker or brighter than grey, three have one bump each."""
    if k == 2:
        return torch.stack([-0.5 * SHIFT * blob(space), 0.5 * SHIFT * blob(space)])
    return torch.stack([SHIFT * blob(space, centre) for centre in (-0.5, 0.0, 0.5)[:k]])


@dataclass(frozen=True)
class ClassGaussian:
    """Class k is N(mean_k, STD^2) in every pixel. Not a module: the engine asks for no more than `Generative`.

    Attributes:
        means: `(k, c, *space)`.
        conditional: Whether it takes labels; the null label k, or none, means the equal mixture of all classes.
    """

    means: Tensor
    conditional: bool = True
    schedule: Schedule = field(default_factory=lambda: Schedule.from_diffusers({"timestep_spacing": "trailing"}))

    @property
    def classes(self) -> int | None:
        return len(self.means) if self.conditional else None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.means.shape[1:])

    def __call__(self, x_t: Tensor, t: Time, label: Tensor | None = None) -> Posterior:
        k = len(self.means)
        assert self.conditional or label is None
        alpha, sigma = self.schedule.alpha(t, x_t), self.schedule.sigma(t, x_t)
        variance = alpha**2 * STD**2 + sigma**2
        away = x_t[:, None] - alpha * self.means
        logits = (-away.square() / (2 * variance)).flatten(2).sum(2)
        if label is not None:
            label = label.clone()
            wrong = (torch.arange(k) != label[:, None]) & (label[:, None] < k)
            logits = logits.masked_fill(wrong, float("-inf"))
        weight = logits.softmax(1).view(len(x_t), k, *[1] * (x_t.ndim - 1))
        mean = (weight * (self.means + alpha * STD**2 / variance * away)).sum(1)
        return Posterior(mean, x_t, alpha, sigma)


class Counted:
    """A generator that counts the rows it is given."""

    def __init__(self, generator) -> None:
        self.generator, self.schedule = generator, generator.schedule
        self.classes, self.shape = generator.classes, generator.shape
        self.rows = 0

    def __call__(self, x_t: Tensor, t: Time, label: Tensor | None = None) -> Posterior:
        self.rows += len(x_t)
        return self.generator(x_t, t, label)


class CountedClassifier(nn.Module):
    """A classifier that counts the rows it is given, and those of them that want a gradient."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.rows = self.gradients = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        self.gradients += len(x) * x.requires_grad
        return self.classifier(x)


class Projection(nn.Module):
    """u(x): -0.5 at the mean of class 0 and 0.5 at that of class 1, linear."""

    def __init__(self, space: tuple[int, ...]) -> None:
        super().__init__()
        means = class_means(space)
        step = means[1] - means[0]
        self.register_buffer("weight", step / step.square().sum())
        self.register_buffer("middle", means.mean(0))

    def u(self, x: Tensor) -> Tensor:
        return ((x - self.middle) * self.weight).flatten(1).sum(1)


class Linear(Projection):
    """One binary logit, 4 at the mean of class 1."""

    def forward(self, x: Tensor) -> Tensor:
        return 8 * self.u(x)


class Quadratic(nn.Module):
    """k logits: minus the squared distance to each class mean, each in units of its own."""

    def __init__(self, means: Tensor) -> None:
        super().__init__()
        self.register_buffer("means", means)
        gap = (means[1] - means[0]).square().sum()
        self.register_buffer("scale", (4 + torch.arange(len(means)) / 10) / gap)

    def forward(self, x: Tensor) -> Tensor:
        # far from the bumps all classes are alike: that part of the distance would only drown the rest
        where = (self.means != 0).any(0)
        return -self.scale * ((x[:, None] - self.means) * where).square().flatten(2).sum(2)


class Bounded(Projection):
    """Never surer than a logit of 1."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(8 * self.u(x))


class Fragile(Projection):
    """Looks at a faint pattern that no denoiser keeps."""

    def forward(self, x: Tensor) -> Tensor:
        return 200 * ((x * checkers(tuple(x.shape[2:]))).flatten(1).mean(1) - 0.1)


class BlowsUp(Projection):
    """Logits of NaN for images that have left class 0 and whose corner is bright."""

    def forward(self, x: Tensor) -> Tensor:
        u = self.u(x)
        broken = (u > -0.1) & (x.flatten(1)[:, 0] > 0)
        return 8 * u + torch.zeros_like(u).masked_fill(broken, torch.nan)


class Cliff(Projection):
    """Finite logits whose gradient is NaN."""

    def forward(self, x: Tensor) -> Tensor:
        u = self.u(x)
        return 8 * u + (0 * u).sqrt()


class Detached(Linear):
    """No gradient at all."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class NotFinite(Linear):
    """Infinite for the second image of a batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).masked_fill(torch.arange(len(x)) == 1, float("inf"))


def draw(means: Tensor, y: Tensor, seed: int = 0) -> Tensor:
    """One image of each class in `y`."""
    noise = normal(tuple(means.shape[1:]), seed=seed, row=torch.arange(len(y)), stream=77)
    return (means[y] + STD * noise).clamp(-1, 1)


def cohort(means: Tensor, n: int, seed: int = 0) -> Cohort:
    """Classes in turn."""
    y = torch.arange(n) % len(means)
    return Cohort(draw(means, y, seed), y=y)


def explain_toys(n: int, **more) -> Counterfactuals:
    """A run in which some rows are already there and the others need different strengths."""
    means = class_means((8, 8))
    toys, target = cohort(means, n), torch.arange(n) // 3 % 2
    return explain(toys, Quadratic(means), ClassGaussian(means), target, oracle=Linear((8, 8)), seed=9, **more)


def tensors(result: Counterfactuals) -> dict[str, Tensor]:
    """Every tensor of a result that the same run repeats: all but the time it took."""
    found = {name: value for name, value in result.parts().items() if name != "seconds"}
    return {name: value.contiguous() for name, value in found.items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Equal integers, and reals that differ by rounding only; the mask may differ where hardly anything changed."""
    assert a.keys() == b.keys()
    for name in a.keys() - {"edited"}:
        torch.testing.assert_close(
            a[name], b[name], atol=tolerance, rtol=0, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}"
        )
    differ = (a["edited"] != b["edited"]).expand_as(a["x"])
    assert ((a["x_cf"] - a["x"])[differ].abs() <= tolerance).all()
