"""Test-time adaptation of batch normalisation: the statistics, or the scale and shift, of another domain.

A layer of batch normalisation computes y = gamma (u - mu) / sqrt(s + eps) + beta, channel by channel, with the mean mu
and variance s that it met in training. On images of another scanner these are another scanner's. Three remedies, each
a context manager inside of which the network is in evaluation mode (so dropout stays off) and after which every
buffer, parameter, `requires_grad` and mode is what it was, bit for bit, also after an exception:

    batch_statistics     mu, s of the images that are shown together. An affine change a x + b of the intensities
                         before a 1x1 convolution then cancels exactly (up to eps)
    target_statistics    mu, s of a whole target domain, as if all of it were one batch; an answer depends on its image
                         alone again, whatever stands beside it
    tuned                as `batch_statistics`, and gamma and beta (nothing else) follow the gradient of an objective
                         without labels: the entropy of the answers (TENT), or how far those to two views of an image
                         are from each other

The statistics of a domain are those of the layer's input with all layers before it adapted already, from sums and sums
of squares over all images, so one layer after the other: m layers cost m passes over the images, each only as far as
its layer. A mean of the variances of batches is another number: it lacks what differs between batches (of images
sorted by site, up to two thirds of the variance).

Of one image, batch statistics are those of instance normalisation; tuning on fewer than some 16 images follows noise.

References: Li et al. (2017), "Revisiting batch normalization for practical domain adaptation"; Schneider et al. (2020),
"Improving robustness against common corruptions by covariate shift adaptation"; Wang et al. (2021), "Tent: fully
test-time adaptation by entropy minimization".
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from cfx.core.cohort import Source
from cfx.core.errors import InputError
from cfx.core.outputs import tensor_of
from cfx.models.judge import Classifier, Judge
from cfx.models.running import BATCH, ask, at_rest, columns

LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""The layers that are adapted."""

Logits = Callable[[Tensor], Tensor]
"""Images to logits `(b, k, ...)`, with a gradient to gamma and beta."""
Objective = Callable[[Logits, Tensor], Tensor]
"""What tuning makes small: a number, of the network's logits as a function and a batch of images."""


def entropy(logits: Logits, x: Float[Tensor, "b c *space"]) -> Float[Tensor, ""]:
    """Mean entropy of the answers, in nats (of every pixel's, if the network segments)."""
    log_p = logits(x).log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()


@dataclass(frozen=True)
class Consistency:
    """Mean Jensen-Shannon divergence of the answers to an image and to another view of it, in nats.

    Attributes:
        view: Images to the same images, seen otherwise: what must not change the answer (a flip, a gain of intensity).
    """

    view: Callable[[Tensor], Tensor]

    def __call__(self, logits: Logits, x: Float[Tensor, "b c *space"]) -> Float[Tensor, ""]:
        """The objective on a batch."""
        log_p, log_q = (logits(v).log_softmax(1) for v in (x, self.view(x)))
        log_m = torch.stack([log_p, log_q]).logsumexp(0) - torch.tensor(2.0).log().to(log_p)
        p_to_m, q_to_m = ((a.exp() * (a - log_m)).sum(1).mean() for a in (log_p, log_q))
        return (p_to_m + q_to_m) / 2


@contextmanager
def batch_statistics(network: Classifier) -> Iterator[None]:
    """Inside, every layer normalises with the statistics of the images that it is shown together.

    Args:
        network: A module with batch normalisation.

    Raises:
        InputError: it has none, or its layers cannot be reached; or it has `SyncBatchNorm` on several processes.
    """
    with _borrowed(network) as layers:
        for layer in layers:
            _set(layer, None, None)
        yield


@contextmanager
def target_statistics(
    network: Classifier, x: Float[Tensor, "n c *space"] | Source, *, batch: int = BATCH
) -> Iterator[None]:
    """Inside, every layer normalises with the statistics that all these images would have as one batch.

    A layer that does not run on them keeps its own.

    Args:
        network: A module with batch normalisation.
        x: Images of the target domain, in memory or any source of them, which is read once a layer.
        batch: Images shown together; the statistics depend on it in the last bits only.

    Raises:
        InputError: as `batch_statistics`; no image; a layer that runs several times an image, for which one set of
            statistics is not those of a batch; or as `ask`.
    """
    parts = partial(_parts, x, batch)
    with _borrowed(network) as layers:
        with _uncompiled(network):
            for layer in _in_order(network, layers, next(parts())):
                _set(layer, *_pooled(network, layer, parts()))
        yield


@contextmanager
def tuned(
    network: Classifier, x: Float[Tensor, "n c *space"] | Source, objective: Objective = entropy, *,
    passes: int = 1, rate: float = 1e-3, batch: int = BATCH,
) -> Iterator[None]:  # fmt: skip
    """Inside, gamma and beta have followed an objective over these images, by Adam; statistics are of the batch.

    Args:
        network: A module with batch normalisation.
        x: Images of the target domain, in memory or any source of them.
        objective: What is made small: `entropy` (TENT), `Consistency(view)`, or any function of their kind.
        passes: How often the images are gone through, one step a batch; 0 is `batch_statistics`.
        rate: Step size.
        batch: Most images of a step; steps have even shares.

    Raises:
        InputError: as `batch_statistics`; no layer has gamma and beta; independent findings, whose answers are no
            distribution over classes; an objective that is not finite or does not depend on gamma and beta; a call
            inside `torch.inference_mode()`; or as `ask`.
    """
    Judge(network, "network")  # refuses independent findings
    with batch_statistics(network):
        affine = _own_affine(batch_norms(network))
        optimiser = torch.optim.Adam(affine, lr=rate)
        for _ in range(passes):
            for some in _parts(x, batch):
                _step(optimiser, affine, partial(objective, partial(_logits, network), some))
        for p in affine:
            p.requires_grad_(False)
        yield


def batch_norms(network: object) -> list[nn.Module]:
    """The layers of batch normalisation of a network.

    Raises:
        InputError: it has none, or is nothing that has layers.
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"network: expected a module with batch normalisation, got {type(network).__name__}")
    found: list[nn.Module] = [m for m in network.modules() if isinstance(m, LAYERS)]
    if found:
        return found
    if any(isinstance(m, torch.jit.ScriptModule | torch.fx.GraphModule) for m in network.modules()):
        raise InputError(
            "network: expected a module whose layers of batch normalisation can be reached, got a script or an "
            "exported graph; give the module that it was made of"
        )
    others = sorted({type(m).__name__ for m in network.modules() if "Norm" in type(m).__name__})
    has = f"only {', '.join(others)}, which keeps no statistics of its training" if others else "none"
    raise InputError(
        f"network: expected layers of batch normalisation to adapt, got {has}; such a network needs no adaptation of "
        "statistics, and none can be had"
    )


def _check_processes(layers: list[nn.Module]) -> None:
    """Refuse layers that would speak of one process's images as if of all."""
    several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    if several and any(isinstance(m, nn.SyncBatchNorm) for m in layers):
        raise InputError(
            f"network: expected no SyncBatchNorm on {distributed.get_world_size()} processes, got some: they adapt to "
            "one process's images alone; adapt in a run of one process"
        )


@contextmanager
def _borrowed(network: Classifier) -> Iterator[list[nn.Module]]:
    """The layers, whose entries may be exchanged inside: the network's own tensors are put back, never written to."""
    layers = batch_norms(network)
    _check_processes(layers)
    own: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [(m, dict(m._parameters), dict(m._buffers)) for m in layers]
    with at_rest(network):
        try:
            yield layers
        finally:
            for layer, parameters, buffers in own:
                layer._parameters.update(parameters)
                layer._buffers.update(buffers)


def _set(layer: nn.Module, mean: Tensor | None, var: Tensor | None) -> None:
    """Give a layer at rest other statistics; without any it takes those of the images it is shown."""
    layer._buffers["running_mean"], layer._buffers["running_var"] = mean, var


def _uncompiled(network: Classifier) -> AbstractContextManager[object]:
    """Inside, compiled parts of a network run as written, so that what is asked of their layers is heard."""
    compiled = isinstance(network, nn.Module) and any("_orig_mod" in m._modules for m in network.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


class _Enough(BaseException):
    """A pass that has come as far as it had to; no `Exception`, which a network or `ask` might take for a failure."""


@torch.no_grad()
def _in_order(network: Classifier, layers: list[nn.Module], x: Tensor) -> list[nn.Module]:
    """The layers that run, in the order in which they do.

    Raises:
        InputError: none runs, or one several times.
    """
    ran: list[nn.Module] = []
    hooks = [m.register_forward_pre_hook(lambda m, _: ran.append(m)) for m in layers]
    try:
        ask(network, x)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise InputError("network: expected layers of batch normalisation that run, got none that does")
    often = sum(m in ran[:k] for k, m in enumerate(ran))
    if often:
        raise InputError(
            "network: expected layers of batch normalisation that run once an image, got some that run again, "
            f"{often} times: one batch has statistics of its own each time; use batch_statistics"
        )
    return ran


@torch.no_grad()
def _pooled(network: Classifier, layer: nn.Module, parts: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of the channels of a layer's input over all images."""
    sums = _Sums()

    def collect(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sums.add(inputs[0].double().movedim(1, 0).flatten(1))
        raise _Enough

    hook = layer.register_forward_pre_hook(collect)
    try:
        for x in parts:
            with suppress(_Enough):
                ask(network, x)
    finally:
        hook.remove()
    own = [t for t in (layer._parameters.get("weight"), layer._buffers.get("running_var")) if t is not None]
    dtype = own[0].dtype if own else torch.float32
    return sums.mean.to(dtype), sums.var.to(dtype)


class _Sums:
    """Sums and sums of squares of the distance to the first images' mean, so that no large numbers are subtracted."""

    def __init__(self) -> None:
        self.n, self.origin, self.first, self.second = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())

    def add(self, u: Float[Tensor, "c m"]) -> None:
        """Take in m more numbers of every channel."""
        if not self.n:
            self.origin = u.mean(1)
        away = u - self.origin[:, None]
        self.n += u.shape[1]
        self.first = self.first.to(u) + away.sum(1)
        self.second = self.second.to(u) + away.square().sum(1)

    @property
    def mean(self) -> Float[Tensor, " c"]:
        return self.origin + self.first / self.n

    @property
    def var(self) -> Float[Tensor, " c"]:
        """The variance of these numbers themselves (divided by n), with which a batch is normalised."""
        return (self.second / self.n - (self.first / self.n).square()).clamp(min=0)


def _own_affine(layers: list[nn.Module]) -> list[nn.Parameter]:
    """Give every layer a gamma and a beta to be tuned in the place of its own; layers that share one still do.

    Raises:
        InputError: no layer has any.
    """
    copies: dict[Tensor, nn.Parameter] = {}
    for layer in layers:
        for name in ("weight", "bias"):
            own = layer._parameters.get(name)
            if own is not None:
                copies.setdefault(own, nn.Parameter(own.detach().clone()))
                layer._parameters[name] = copies[own]
    if not copies:
        raise InputError("network: expected batch normalisation with gamma and beta (affine=True), got none that has")
    return list(copies.values())


def _step(optimiser: torch.optim.Optimizer, affine: list[nn.Parameter], objective: Callable[[], Tensor]) -> None:
    """One step of gamma and beta.

    Raises:
        InputError: the objective cannot be followed.
    """
    if torch.is_inference_mode_enabled():
        raise InputError("network: nothing can be tuned inside torch.inference_mode(); leave inference_mode")
    with torch.enable_grad():
        loss = objective()
        if not bool(torch.isfinite(loss)):
            raise InputError(f"objective: expected a finite number, got {float(loss.detach())}")
        if not loss.requires_grad:
            raise InputError("objective: expected a number that depends on gamma and beta, got one that does not")
        gradients = torch.autograd.grad(loss, affine, allow_unused=True)
    for p, g in zip(affine, gradients, strict=True):
        p.grad = g
    optimiser.step()


def _logits(network: Classifier, x: Tensor) -> Tensor:
    """Logits with a column a class, of images or of their pixels; a binary logit l becomes (0, l)."""
    out = tensor_of(ask(network, x), "network")
    out = out if out.ndim > 2 else columns(out, len(x), "network")
    return torch.cat([torch.zeros_like(out), out], 1) if out.shape[1] == 1 else out


def _parts(x: Tensor | Source, batch: int) -> Iterator[Tensor]:
    """The images in even shares of at most so many.

    Raises:
        InputError: no image.
    """
    if not len(x):
        raise InputError("x: expected images of the target domain, got none")
    for rows in torch.arange(len(x)).tensor_split(ceil(len(x) / batch)):
        yield x[rows] if isinstance(x, Tensor) else x[rows].x
