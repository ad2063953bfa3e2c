"""What several metrics share: networks called in batches on their own device, and the class a row comes from."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.counterfactual.result import Counterfactuals
from cfx.models.judge import Judge, at_rest

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two batches of images to one distance a row."""


def in_batches(network: Callable[..., Tensor], *images: Float[Tensor, "n c *space"]) -> Float[Tensor, "n ..."]:
    """Outputs of a network, 64 rows at a time on its device, in evaluation mode, without gradient; on the CPU."""
    parameters = network.parameters() if isinstance(network, nn.Module) else ()
    device = next((p.device for p in parameters), images[0].device)
    with at_rest(network), torch.no_grad():
        parts = [
            network(*(v.to(device) for v in part)).cpu() for part in zip(*(v.split(64) for v in images), strict=True)
        ]
    return torch.cat(parts)


def logits_of(classifier: nn.Module, x: Float[Tensor, "n c *space"], name: str = "classifier") -> Float[Tensor, "n k"]:
    """Logits with two or more columns, under the convention of `cfx.counterfactual.Judge`.

    Raises:
        InputError: as `Judge.logits`, under this name.
    """
    return in_batches(_Columns(classifier, name), x)


class _Columns(nn.Module):
    """A classifier with the judge's convention, still a module, so that its device and mode are known."""

    def __init__(self, classifier: nn.Module, name: str) -> None:
        super().__init__()
        self.classifier, self.name = classifier, name

    def forward(self, x: Tensor) -> Tensor:
        return Judge(self.classifier, self.name).logits(x)


def source_class(result: Counterfactuals) -> Int[Tensor, " n"]:
    """The class every row comes from: the most probable one of `x` besides the target."""
    return result.probs_before.scatter(1, result.target[:, None], -1.0).argmax(1)


def probability(probs: Float[Tensor, "n k"], label: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The probability of each row's own label."""
    return probs.gather(1, label[:, None])[:, 0]


def rms(v: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Root mean square of every row."""
    return v.flatten(1).square().mean(1).sqrt()


def apart(
    a: Float[Tensor, "n c *space"], b: Float[Tensor, "n c *space"], distance: Distance | None = None
) -> Float[Tensor, " n"]:
    """Distance of each pair of images; root mean square over pixels and channels by default."""
    return rms(a - b) if distance is None else in_batches(distance, a, b)
