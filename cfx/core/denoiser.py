"""A denoiser turns a noised image into a posterior: the one-step estimate of the clean image, and what follows from it.

Any network called as `network(x_t, timesteps=...)`, or `network(x_t, timesteps=..., class_labels=...)`, becomes one;
diffusers' call, `timestep=...` and an output with `.sample`, is as good. Solvers, inversion and guidance see only the
posterior, never what the network was trained to predict.
"""

import inspect
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cfx.core.errors import InputError, in_one_line
from cfx.core.outputs import tensor_of
from cfx.core.schedule import Schedule, Time, check_time


@dataclass(frozen=True)
class Posterior:
    """What is known of x given x_t = alpha x + sigma eps.

    Attributes:
        mean: Estimate of E[x | x_t], `(b, c, *space)`. To guide, `dataclasses.replace` it: `eps` and `v` follow.
        x_t: The noised image, same shape.
        alpha: Signal level at t, broadcastable to `x_t`.
        sigma: Noise level at t, broadcastable to `x_t`; positive.
    """

    mean: Float[Tensor, "b c *space"]
    x_t: Float[Tensor, "b c *space"]
    alpha: Float[Tensor, "..."]
    sigma: Float[Tensor, "..."]

    @property
    def eps(self) -> Float[Tensor, "b c *space"]:
        """The noise that `mean` implies."""
        return (self.x_t - self.alpha * self.mean) / self.sigma

    @property
    def v(self) -> Float[Tensor, "b c *space"]:
        """The velocity alpha eps - sigma x that `mean` implies."""
        return self.alpha * self.eps - self.sigma * self.mean


@runtime_checkable
class Generative(Protocol):
    """What solvers and inversion need of a generator: a schedule, and a call that returns a posterior."""

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""

    def __call__(self, x_t: Float[Tensor, "b c *space"], t: Time, label: Int[Tensor, " b"] | None = None) -> Posterior:
        """The posterior at time t in 1 .. T, under a class label or without one."""


@runtime_checkable
class Latent(Generative, Protocol):
    """A generator that works on codes of images instead of images: x_t above is then a noised code z_t."""

    def encode(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b z *coarse"]:
        """The code of images."""

    def decode(self, z: Float[Tensor, "b z *coarse"]) -> Float[Tensor, "b c *space"]:
        """The images of codes, differentiably."""


class Denoiser(nn.Module):
    """A network and its schedule as one posterior-valued function.

    Args:
        network: `(b, c, *space)`, `timesteps=(b,)` int64 in 0 .. T-1 (and `class_labels=(b,)` int64 if `classes` is
            given) to `(b, c, *space)`, a tensor or one in a wrapping that `cfx.core.outputs` knows. `timestep` may take
            the place of `timesteps`, as in diffusers' `UNet2DModel`.
        schedule: Noise schedule and prediction type.
        classes: Number of class labels; None for an unconditional network. A conditional network embeds one label more:
            index `classes` means "no label" and is used when none is given.
        shape: `(c, *space)` that the network accepts; None accepts any.

    Raises:
        InputError: noise prediction with a zero-SNR schedule (x cannot be read from x_T), classes < 1, a network that
            cannot be called so, or one whose `multiple` (what spatial sizes must be divisible by) does not fit `shape`.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        classes: int | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """See the class."""
        super().__init__()
        if schedule.zero_snr and schedule.prediction == "epsilon":
            raise InputError("schedule: zero terminal SNR expects prediction 'v' or 'x0', got 'epsilon'")
        if classes is not None and classes < 1:
            raise InputError(f"classes: expected None or at least 1, got {classes}")
        self.network = network
        self.schedule = schedule
        self.classes = classes
        self.shape = None if shape is None else tuple(shape)
        self.time = _name_of_time(network, classes)
        _check_embedding(network, classes)
        if self.shape is not None:
            check_divisible("shape", self.shape[1:], self.multiple)

    @property
    def multiple(self) -> int:
        """What spatial sizes must be divisible by, where the network says so; 1 otherwise."""
        return int(getattr(_inside(self.network), "multiple", 1))

    def forward(self, x_t: Float[Tensor, "b c *space"], t: Time, label: Int[Tensor, " b"] | None = None) -> Posterior:
        """Posterior of x given x_t.

        Args:
            x_t: Noised images.
            t: Time, 1 .. T: one for all, or one a row.
            label: Class of every row in 0 .. classes (`classes` is the null label); None for the null label.

        Raises:
            InputError: images of another shape than the network's, a time or label out of range, a label for an
                unconditional network, or a network that fails or whose output has another shape than its input.
        """
        self._check_shape(x_t)
        out = self._asked(x_t, {self.time: self._timesteps(x_t, t), **self._condition(x_t, label)})
        if out.shape != x_t.shape:
            raise InputError(f"network: expected an output of shape {tuple(x_t.shape)}, got {tuple(out.shape)}")
        out = out.to(x_t.dtype)
        alpha, sigma = self.schedule.alpha(t, x_t), self.schedule.sigma(t, x_t)
        return Posterior(self._mean(out, x_t, alpha, sigma), x_t, alpha, sigma)

    def _asked(self, x_t: Tensor, keywords: dict[str, Tensor]) -> Tensor:
        """What the network says; its own errors in one line, but for want of memory, which a smaller batch mends."""
        try:
            return tensor_of(self.network(x_t, **keywords))
        except (InputError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise InputError(f"network: failed on images of shape {tuple(x_t.shape)}: {in_one_line(error)}") from error

    def _mean(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        match self.schedule.prediction:
            case "epsilon":
                return (x_t - sigma * out) / alpha
            case "v":
                return alpha * x_t - sigma * out
            case "x0":
                return out

    def _check_shape(self, x_t: Tensor) -> None:
        if self.shape is not None and tuple(x_t.shape[1:]) != self.shape:
            raise InputError(f"x_t: expected images of shape (c, *space) = {self.shape}, got {tuple(x_t.shape[1:])}")

    def _timesteps(self, x_t: Tensor, t: Time) -> Tensor:
        """Index t - 1 of every row, as diffusers counts."""
        if isinstance(t, int):
            return torch.full((len(x_t),), check_time(t, self.schedule.T, first=1) - 1, device=x_t.device)
        if t.shape != (len(x_t),):
            raise InputError(f"t: expected an int or one time for each of {len(x_t)} rows, got shape {tuple(t.shape)}")
        check_time(int(t.min()), self.schedule.T, first=1)
        check_time(int(t.max()), self.schedule.T, first=1)
        return t.to(x_t.device) - 1

    def _condition(self, x_t: Tensor, label: Tensor | None) -> dict[str, Tensor]:
        """The keyword arguments that carry the label, none for an unconditional network."""
        if self.classes is None:
            if label is not None:
                raise InputError("label: expected None, this denoiser is unconditional; got labels")
            return {}
        if label is None:
            return {"class_labels": torch.full((len(x_t),), self.classes, device=x_t.device)}
        if label.shape != (len(x_t),):
            raise InputError(f"label: expected one class for each of {len(x_t)} rows, got shape {tuple(label.shape)}")
        if int(label.min()) < 0 or int(label.max()) > self.classes:
            found = sorted(set(label.tolist()))
            raise InputError(f"label: expected classes 0 .. {self.classes} ({self.classes} = no label), got {found}")
        return {"class_labels": label.to(x_t.device, torch.int64)}


def _inside(network: nn.Module) -> nn.Module:
    """A network without what distributed training or a compiler wraps round it, which takes any arguments."""
    network = network.module if isinstance(network, DistributedDataParallel) else network
    return getattr(network, "_orig_mod", network)


def _name_of_time(network: nn.Module, classes: int | None) -> str:
    """What a network calls its argument of time.

    Raises:
        InputError: it takes no such argument, no labels where there are some, or needs more than these.
    """
    given = {"class_labels": 0} if classes is not None else {}
    try:
        takes = inspect.signature(_inside(network).forward)
    except (TypeError, ValueError):  # a compiled graph does not say
        return "timesteps"
    for name in ("timesteps", "timestep"):
        try:
            takes.bind(0, **{name: 0}, **given)
        except TypeError:
            continue
        return name
    call = "network(x, timesteps=..., class_labels=...)" if given else "network(x, timesteps=...)"
    raise InputError(f"network: expected one that can be called as {call}, got {type(network).__name__}{takes}")


def _check_embedding(network: nn.Module, classes: int | None) -> None:
    """Refuse a network of diffusers or MONAI whose table of labels has no row for "no label", or that has no table.

    Raises:
        InputError: that is so.
    """
    own, names = vars(_inside(network)), ("class_embedding", "num_class_embeds")
    if classes is not None and any(name in own and own[name] is None for name in names):
        raise InputError(f"classes: expected None, the network embeds no labels and would ignore them; got {classes}")
    rows = getattr(getattr(_inside(network), "class_embedding", None), "num_embeddings", None)
    if rows is None or (classes is not None and rows > classes):
        return
    raise InputError(
        f"classes: expected {rows - 1}, if the last of the {rows} labels that the network embeds means 'no label', "
        f"got {classes}; one that was never trained without a label cannot be used"
    )


def check_divisible(name: str, space: tuple[int, ...], multiple: int) -> None:
    """Refuse spatial sizes that a network of strides cannot take.

    Raises:
        InputError: a size is no multiple of it.
    """
    if any(s % multiple for s in space):
        raise InputError(f"{name}: expected spatial sizes divisible by {multiple}, got {tuple(space)}")
