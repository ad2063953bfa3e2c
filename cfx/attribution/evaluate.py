"""What a map is worth, in any number of dimensions: one number a row, whatever made the map.

    deletion       mean over shares q of p(x with the top q of the voxels replaced by the fill), lower is better
    insertion      mean over shares q of p(fill with the top q of the voxels of x), higher is better
    infidelity     E (<I, A> - (f(x) - f(x - I)))^2 over perturbations I, of b A with the best factor b, relative to
                   E (f(x) - f(x - I))^2: 0 where the map predicts every change, 1 where it predicts nothing
    sensitivity    max over noise d, |d| <= r, of ||A(x + d) - A(x)|| / ||A(x)||
    pointing       whether the largest voxel lies in the truth
    AUPRC          of |A| against the truth (`cfx.core.scores.average_precision`)
    share          share of |A| that lies in a region

p is the softmax of the class that is asked about. Voxels are ranked by the map, summed over channels; where two are
equal, the earlier one is first. The usual fills take an image out of its distribution, and a curve then says how a
network answers to images that it has never seen; filled with the voxels of a counterfactual it ends at one it has.

References: Petsiuk, Das, Saenko (2018), "RISE"; Yeh, Hsieh, Suggala, Inouye, Ravikumar (2019), "On the (in)fidelity
and sensitivity of explanations"; Zhang, Bargal, Lin, Brandt, Shen, Sclaroff (2018), "Top-down neural attention by
excitation backprop" (the pointing game).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.attribution.result import Attributions
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform
from cfx.core.scores import average_precision
from cfx.models.judge import Classifier, Judge

STEPS = 16
"""Shares of the voxels at which a curve is read, beside none of them."""
_PERTURBED, _MOVED = 0x5610, 0x5611  # streams


@dataclass(frozen=True)
class Curves:
    """How sure a classifier is as voxels are exchanged in the order of a map.

    Attributes:
        deletion: p of the target at shares 0, 1/s .. 1 of the voxels replaced, `(n, s + 1)`.
        insertion: The same of the fill with as many voxels of the image.
    """

    deletion: Float[Tensor, "n s"]
    insertion: Float[Tensor, "n s"]

    @property
    def areas(self) -> dict[str, Float[Tensor, " n"]]:
        """Area under either curve, by the trapezium rule."""
        return {"deletion": _area(self.deletion), "insertion": _area(self.insertion)}


def size(a: Float[Tensor, "n m *space"]) -> Float[Tensor, "n 1 *space"]:
    """Size of a map: its sum over channels, without the sign."""
    return a.sum(1, keepdim=True).abs()


def curves(
    f: Classifier,
    x: Float[Tensor, "n c *space"],
    a: Float[Tensor, "_ _ ..."],
    fill: Float[Tensor, "_ _ ..."],
    target: Int[Tensor, "_"],
    *,
    steps: int = STEPS,
    batch_size: int = 64,
) -> Curves:
    """Deletion and insertion of a map.

    Args:
        f: The classifier.
        x: Images.
        a: Their maps; the largest voxels, by the sum over channels, are exchanged first.
        fill: What takes the place of voxels: a constant, a blur, counterfactuals.
        target: Class that is asked about.
        steps: Points of a curve beside the first.
        batch_size: Images shown together.

    Raises:
        InputError: maps, fills or targets of other images.
    """
    _check(x, a, fill, target)
    rank, n_voxels = ranks(a), a[0, 0].numel()
    judge = Judge(f, "f")
    parts: dict[str, list[Tensor]] = {"deletion": [], "insertion": []}
    for k in range(steps + 1):
        top = rank < round(k / steps * n_voxels)
        for name, image in (("deletion", torch.where(top, fill, x)), ("insertion", torch.where(top, x, fill))):
            parts[name].append(judge.probabilities(image, batch_size).gather(1, target[:, None].cpu())[:, 0])
    return Curves(*(torch.stack(parts[name], 1) for name in ("deletion", "insertion")))


def ranks(a: Float[Tensor, "n m *space"]) -> Int[Tensor, "n 1 *space"]:
    """Rank of every voxel, the largest first."""
    flat = a.sum(1).flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    place = torch.arange(order.shape[1], device=a.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place).view(len(a), 1, *a.shape[2:])


def infidelity(
    f: Classifier,
    x: Float[Tensor, "n c *space"],
    a: Float[Tensor, "n m *space"],
    target: Int[Tensor, " n"],
    *,
    draws: int = 32,
    deviation: float = 0.2,
    seed: int = 0,
    batch_size: int = 64,
) -> Float[Tensor, " n"]:
    """Share of the changes of the target's logit under noise that the map does not predict, in [0, 1].

    Args:
        f: The classifier.
        x: Images.
        a: Their maps, attributions of x: a map times nothing is compared with noise divided by nothing, so that maps
            of one channel are shared by all.
        target: Class that is asked about.
        draws: Perturbations an image.
        deviation: Their standard deviation; they are normal.
        seed: Seed of the noise.
        batch_size: Images shown together.

    Raises:
        InputError: maps or targets of other images.
    """
    _check(x, a, x, target)
    judge, row = Judge(f, "f"), torch.arange(len(x))
    noise = deviation * normal((draws, *x.shape[1:]), seed=seed, row=row, stream=_PERTURBED).to(x)
    near = (x[:, None] - noise).flatten(0, 1)
    many = target.cpu().repeat_interleave(draws)
    after = judge.answers(near, batch_size).gather(1, many[:, None])[:, 0].view(len(x), draws)
    before = judge.answers(x, batch_size).gather(1, target.cpu()[:, None])
    return unexplained((noise * a[:, None]).flatten(2).sum(2).cpu(), before - after)


def unexplained(said: Float[Tensor, "n k"], change: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """Min over b of mean (b said - change)^2 / mean change^2; NaN where nothing changes, 1 where nothing is said."""
    said, change = said.double(), change.double()
    power = change.square().mean(1)
    factor = (said * change).mean(1) / said.square().mean(1).clamp_min(torch.finfo(torch.float64).tiny)
    left = (factor[:, None] * said - change).square().mean(1)
    return torch.where(power > 0, left / power, torch.nan)


def max_sensitivity(
    explain: Callable[[Float[Tensor, "n c *space"]], Attributions],
    x: Float[Tensor, "n c *space"],
    *,
    radius: float = 0.02,
    draws: int = 10,
    seed: int = 0,
) -> Float[Tensor, " n"]:
    """Largest relative change of a map under uniform noise of at most a radius; images stay in [-1, 1].

    Args:
        explain: Images to their maps, with the targets of the first ones.
        x: Images.
        radius: Largest change of a voxel.
        draws: Perturbations an image.
        seed: Seed of the noise.
    """
    first = explain(x).map.flatten(1)
    worst = torch.zeros(len(x))
    for k in range(draws):
        noise = uniform(tuple(x.shape[1:]), seed=seed + k, row=torch.arange(len(x)), stream=_MOVED).to(x)
        moved = explain((x + radius * (2 * noise - 1)).clamp(-1, 1)).map.flatten(1)
        worst = torch.maximum(worst, (moved - first).norm(dim=1))
    found: Tensor = worst / first.norm(dim=1)
    return found


def localisation(a: Float[Tensor, "n m *space"], truth: Bool[Tensor, "n 1 *space"]) -> dict[str, Float[Tensor, " n"]]:
    """How well the size of a map finds a region.

    Returns:
        `auprc`, `auprc_base` (the share of voxels in the region, what chance scores), `pointing` and `share_inside`;
        NaN in rows without a region.
    """
    flat, where = size(a).flatten(1).cpu(), truth.flatten(1).cpu()
    nowhere, held = ~where.any(1), (flat * where).double().sum(1) / flat.double().sum(1)
    hit = where.gather(1, flat.argmax(1, keepdim=True))[:, 0]
    known = {
        "auprc": average_precision(flat, where).double(), "auprc_base": where.double().mean(1),
        "pointing": hit.double(), "share_inside": held,
    }  # fmt: skip
    return {name: value.masked_fill(nowhere, torch.nan) for name, value in known.items()}


def _area(curve: Float[Tensor, "n s"]) -> Float[Tensor, " n"]:
    return ((curve[:, 1:] + curve[:, :-1]) / 2).double().mean(1)


def _check(x: Tensor, a: Tensor, fill: Tensor, target: Tensor) -> None:
    """Refuse what is not of the same images."""
    if len(a) != len(x) or a.shape[2:] != x.shape[2:] or a.shape[1] not in (1, x.shape[1]):
        raise InputError(f"a: expected maps of images {tuple(x.shape)}, got {tuple(a.shape)}")
    if fill.shape != x.shape:
        raise InputError(f"fill: expected the shape of the images, {tuple(x.shape)}, got {tuple(fill.shape)}")
    if target.shape != (len(x),):
        raise InputError(f"target: expected one class for each of {len(x)} images, got shape {tuple(target.shape)}")
