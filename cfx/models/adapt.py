"""Your own network, as cfx speaks to networks: images in [-1, 1] in, logits out.

A network was trained on images of its own: of some range, standardised, of three channels, of one size; and it answers
in its own way: logits, probabilities, one column an independent finding, a value. `Pixels` and `Output` say which;
`adapt` puts both round the network as one module. The image is taken to the network's pixels differentiably,

    v = low + (high - low) (x + 1) / 2,    repeated to its channels, resized, then (v - mean) / std,

and probabilities are turned back to logits: log p - log(1 - p) of a sigmoid, log p of a softmax, whose softmax is p.
Where a probability is 0 or 1 to the last digit, its logit is the largest that digit can mean, and stays finite.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from os import PathLike
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.errors import InputError
from cfx.core.resize import resized
from cfx.models.running import columns
from cfx.models.wrappers import Finding, Near
from cfx.runtime.config import Frozen, check

Settings = TypeVar("Settings", bound=Frozen)
_SUM = 1e-2  # how far the sum of a row of probabilities may be from one: single precision, or half


class Pixels(Frozen):
    """How a network wants its images; the defaults are cfx's own, which change nothing."""

    range: tuple[float, float] = (-1.0, 1.0)
    """Values that the darkest and the brightest pixel have, before `mean` and `std`: `[0, 1]`, `[0, 255]`."""
    mean: float | tuple[float, ...] | None = None
    """Subtracted after `range`: one number for all channels, or one each."""
    std: float | tuple[float, ...] | None = None
    """Divided by after `mean`, positive; one number for all channels, or one each."""
    channels: Literal[1, 3] | None = None
    """Channels the network wants; a gray image is repeated. None takes the images as they are."""
    size: int | tuple[int, ...] | None = None
    """Pixels along every axis, or one number for all, resized with antialiasing; None takes the images as they are."""


class Output(Frozen):
    """How a network answers; by default with logits, one a class, or one alone for two classes."""

    kind: Literal["logits", "binary", "multilabel", "regression"] = "logits"
    """`logits`: one column a class, the largest wins. `binary`: one column, positive for class 1. `multilabel`: one
    column a finding, each for itself. `regression`: a value to reach."""
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    """What the network already ends in; it is turned back to logits."""
    finding: int | str | None = None
    """Of a multilabel network: the finding to explain, by number from 0, or by one of the names in `classes`."""
    classes: tuple[str, ...] = ()
    """Names of the classes or findings in order; as many as the network has."""
    goal: float | None = None
    """Of a regression: the value to reach."""
    tolerance: float | None = None
    """Of a regression: how near the goal is near enough, positive, in the units of the value."""


class Adapted(nn.Module):
    """A network behind its pixels and its activation: images in [-1, 1] to columns of logits, or values.

    Attributes:
        network: The network.
        pixels: How it wants its images.
        output: How it answers.
    """

    def __init__(self, network: Callable[[Tensor], object], pixels: Pixels, output: Output) -> None:
        """Settings are checked by `adapt`."""
        super().__init__()
        self.network, self.pixels, self.output = network, pixels, output

    def train(self, mode: bool = True) -> "Adapted":
        """Switch the network in its own way, if it has modes: a frozen script has none, an exported graph keeps its."""
        self.training = mode
        if isinstance(self.network, nn.Module) and hasattr(self.network, "training"):
            with suppress(NotImplementedError):
                self.network.train(mode)
        return self

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k"]:
        """Logits of images in [-1, 1].

        Raises:
            InputError: images that cannot be brought to the network's pixels, or answers that `output` does not fit.
        """
        found = columns(self.network(to_pixels(x, self.pixels)), len(x), "network")
        check_columns(self.output, found.shape[1])
        return to_logits(found, self.output.activation)


def adapt(
    network: Callable[[Tensor], object],
    *,
    pixels: Pixels | Mapping[str, Any] | None = None,
    output: Output | Mapping[str, Any] | None = None,
) -> nn.Module:
    """A network of other pixels and other answers, as one that cfx can ask.

    Args:
        network: A module of any kind (plain, scripted, traced, exported, compiled), or a function. It is not changed.
        pixels: How it wants its images, or the keys of it as in a configuration, `{"range": (0, 1)}`; in [-1, 1] and as
            they come by default.
        output: How it answers, likewise; with logits by default.

    Returns:
        A module that holds the network; with `kind: multilabel` a `Finding` of it, with `regression` a `Near`.

    Raises:
        InputError: no network, unknown settings, or ones that contradict each other. What only an answer can show is an
            InputError when it comes.

    Example:
        `adapt(resnet, pixels=Pixels(range=(0, 1), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), channels=3,
        size=224))` takes gray images in [-1, 1] to a network of ImageNet's standardisation.
    """
    if isinstance(network, str | PathLike):
        raise InputError(
            f"network: expected a network, got the path {str(network)!r}; cfx.models.open_network({{'path': "
            f"{str(network)!r}, 'pixels': ..., 'output': ...}}) opens and adapts it"
        )
    if not callable(network) or isinstance(network, type):
        raise InputError(f"network: expected a network or a function of images, got {network!r:.60}")
    pixels, output = settings(Pixels, pixels, "pixels"), settings(Output, output, "output")
    _check_pixels(pixels)
    _check_output(output)
    adapted = Adapted(network, pixels, output)
    if output.kind == "multilabel":
        return Finding(adapted, finding_of(output))
    if output.kind == "regression":
        return Near(adapted, *value_of(output))
    return adapted


def settings(kind: type[Settings], given: object, name: str) -> Settings:
    """Settings of their own class, or the mapping of some.

    Args:
        kind: `Pixels` or `Output`.
        given: One of it, a mapping of its keys, or None for its defaults.
        name: What they are called in errors.

    Raises:
        InputError: something else, or unknown keys or values; the message has the nearest key.
    """
    if given is None or isinstance(given, kind):
        return given or kind()
    if not isinstance(given, Mapping):
        known = ", ".join(kind.model_fields)
        raise InputError(f"{name}: expected {kind.__name__}(...) or a mapping of its keys ({known}), got {given!r:.60}")
    return check(kind, dict(given), name)


def to_pixels(x: Float[Tensor, "b c *space"], pixels: Pixels) -> Float[Tensor, "b c2 *space2"]:
    """Images in [-1, 1] as a network wants them.

    Raises:
        InputError: colour images for a network of gray ones, another number of means than channels, or a size of
            another number of axes.
    """
    low, high = pixels.range
    if (low, high) != (-1, 1):
        x = low + (x + 1) * ((high - low) / 2)
    if pixels.channels is not None and x.shape[1] != pixels.channels:
        if x.shape[1] != 1:
            raise InputError(f"pixels.channels: expected images of {pixels.channels} or 1 channels, got {x.shape[1]}")
        x = x.expand(-1, pixels.channels, *x.shape[2:])
    if pixels.size is not None:
        x = resized(x, pixels.size)
    if pixels.mean is not None:
        x = x - _per_channel("pixels.mean", pixels.mean, x)
    return x if pixels.std is None else x / _per_channel("pixels.std", pixels.std, x)


def _per_channel(name: str, values: float | int | Sequence[float], x: Tensor) -> float | Tensor:
    """One number for all channels, or one each, broadcastable to images."""
    if isinstance(values, int | float):
        return values
    c = x.shape[1]
    if len(values) != c:
        hint = "; pixels.channels: 3 repeats gray images" if (len(values), c) == (3, 1) else ""
        raise InputError(f"{name}: expected one number for each of {c} channels, got {len(values)}{hint}")
    return x.new_tensor(values).reshape(-1, *(1,) * (x.ndim - 2))


def to_logits(out: Float[Tensor, "b k"], activation: str) -> Float[Tensor, "b k"]:
    """Numbers before an activation, up to a constant of a row for `softmax`; finite, with a gradient.

    Raises:
        InputError: numbers that this activation does not give.
    """
    if activation == "none":
        return out
    _check_probabilities(out.detach(), activation)
    least = torch.finfo(out.dtype).tiny
    if activation == "softmax":
        return out.clamp_min(least).log()
    return out.clamp_min(least).log() - (1 - out).clamp_min(torch.finfo(out.dtype).eps / 4).log()


def _check_probabilities(p: Float[Tensor, "b k"], activation: str) -> None:
    """Refuse what is no answer of a sigmoid or softmax; NaN is left to whoever asks."""
    p = p[p.isfinite().all(1)]
    if len(p) and (float(p.min()) < 0 or float(p.max()) > 1):
        got = f"values from {float(p.min()):.3g} to {float(p.max()):.3g}"
        raise InputError(f"output.activation: expected probabilities of a {activation}, in [0, 1], got {got}")
    if activation == "softmax" and len(p) and float((p.sum(1) - 1).abs().max()) > _SUM:
        worst = p.sum(1)[(p.sum(1) - 1).abs().argmax()]
        raise InputError(f"output.activation: expected rows of a softmax, which sum to 1, got a sum of {worst:.3g}")


def check_columns(output: Output, k: int) -> None:
    """Refuse a number of columns that these settings cannot mean.

    Raises:
        InputError: naming the setting.
    """
    one = "; several columns are kind: logits (exclusive classes) or kind: multilabel (independent findings)"
    if output.kind in ("binary", "regression") and k != 1:
        raise InputError(f"output.kind: {output.kind} expects one column an image, got {k}{one}")
    if output.kind == "logits" and output.activation == "sigmoid" and k > 1:
        raise InputError(
            f"output.activation: {k} columns, each behind a sigmoid, are independent findings; expected "
            "kind: multilabel with the finding to explain"
        )
    if output.activation == "softmax" and k == 1:
        raise InputError("output.activation: a softmax over one column is always 1; expected sigmoid, or more columns")
    if output.kind == "multilabel" and finding_of(output) >= k:
        got = f"{output.finding!r}" + (f", number {finding_of(output)}" if isinstance(output.finding, str) else "")
        raise InputError(f"output.finding: expected one of the network's findings, 0 .. {k - 1}, got {got}")
    names = 2 if k == 1 and output.kind in ("logits", "binary") else k
    if output.classes and len(output.classes) != names:
        raise InputError(f"output.classes: expected {names} names for {k} columns, got {len(output.classes)}")


def _check_pixels(pixels: Pixels) -> None:
    """Refuse what contradicts itself, whatever the images are."""
    low, high = pixels.range
    if not low < high:
        raise InputError(f"pixels.range: expected (low, high) with low < high, got {pixels.range}")
    for name in ("mean", "std"):
        values = getattr(pixels, name)
        if isinstance(values, tuple) and pixels.channels not in (None, len(values)):
            got = f"{len(values)} and channels: {pixels.channels}"
            raise InputError(f"pixels.{name}: expected one number for each of the channels, got {got}")
    if any(not s > 0 for s in _listed(pixels.std)):
        raise InputError(f"pixels.std: expected positive numbers, got {pixels.std}")
    if any(s < 1 for s in _listed(pixels.size)):
        raise InputError(f"pixels.size: expected positive numbers, got {pixels.size}")


def _listed(values: float | int | Sequence[float | int] | None) -> list[float | int]:
    """One number or several as a list; none as an empty one."""
    if values is None:
        return []
    return [values] if isinstance(values, int | float) else list(values)


def _check_output(output: Output) -> None:
    """Refuse settings that belong to another kind, or to none."""
    belongs = {"finding": "multilabel", "goal": "regression", "tolerance": "regression"}
    for name, kind in belongs.items():
        if getattr(output, name) is not None and output.kind != kind:
            raise InputError(f"output.{name}: only with kind: {kind}, got kind: {output.kind}")
    refused = {"regression": ("sigmoid", "softmax"), "multilabel": ("softmax",), "binary": ("softmax",)}
    if output.activation in refused.get(output.kind, ()):
        hint = "; two columns behind a softmax are kind: logits" if output.kind == "binary" else ""
        raise InputError(f"output.activation: {output.activation} does not go with kind: {output.kind}{hint}")


def finding_of(output: Output) -> int:
    """The column of the finding to explain.

    Raises:
        InputError: none is named, or one that is not among the classes.
    """
    names = ", ".join(f"{k} {name}" for k, name in enumerate(output.classes))
    among = f" among {names}" if names else " by its number, from 0"
    if output.finding is None:
        raise InputError(f"output.finding: a multilabel network is explained one finding at a time; name one{among}")
    if isinstance(output.finding, str):
        if output.finding not in output.classes:
            raise InputError(f"output.finding: expected one{among}, got {output.finding!r}")
        return output.classes.index(output.finding)
    if output.finding < 0 or (output.classes and output.finding >= len(output.classes)):
        raise InputError(f"output.finding: expected one{among}, got {output.finding}")
    return output.finding


def value_of(output: Output) -> tuple[float, float]:
    """The value to reach, and how near.

    Raises:
        InputError: one of them is missing.
    """
    if output.goal is None or output.tolerance is None:
        missing = [name for name in ("goal", "tolerance") if getattr(output, name) is None]
        raise InputError(f"output.{missing[0]}: kind: regression explains how a value is reached; expected a number")
    return output.goal, output.tolerance
