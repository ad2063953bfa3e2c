"""Draw masks of images with any network that can (`cfx.models.samplers`).

An image is looked at once, whatever the number of its masks. Mask k of an image is drawn with a counter of its own,
that of image and k: which mask it is depends on neither the batch, nor how many are asked for, nor the process.
"""

import time
from typing import Any

import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from cfx.core.cohort import Source, as_source, check_images
from cfx.core.denoiser import check_divisible
from cfx.core.errors import InputError
from cfx.core.overlap import within
from cfx.models.running import at_rest, device_of
from cfx.models.samplers.sampler import Code, MaskSampler
from cfx.segmentation.metrics.drawings import Drawings
from cfx.segmentation.result import Drawn, Segmentations

Images = Float[Tensor, "_ _ ..."] | NDArray[Any] | Source
"""Images in [-1, 1]: a tensor or array, a cohort, or any source of them."""
MOST = 1 << 20
"""More masks an image than can be told apart by counter."""


def sample_masks(
    x: Images,
    segmenter: nn.Module,
    n: int = 16,
    *,
    rows: Int[Tensor, " n"] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    device: torch.device | None = None,
) -> Segmentations:
    """Masks of every image, as several experts might have drawn them.

    Args:
        x: Images in [-1, 1].
        segmenter: A network that draws masks, such as `cfx.load("lidc64-energy")`; moved to `device`.
        n: Masks an image, two at least.
        rows: Number of every image, which keys its draws; by default they are counted from 0.
        seed: Seed of the draws.
        batch_size: Masks worked on together; does not change them but for rounding.
        device: Where to work; by default where the network is.

    Raises:
        InputError: no network that draws masks, fewer than two masks, or images that are not finite, not in [-1, 1], or
            of a size or number of channels that the network cannot take.
    """
    source = as_source(x, "x")
    _check(segmenter, n, batch_size)
    assert isinstance(segmenter, MaskSampler)
    check_divisible("x", tuple(source.shape[1:]), segmenter.multiple)
    place = device or device_of(segmenter) or torch.device("cpu")
    numbers = torch.arange(len(source)) if rows is None else rows
    if numbers.shape != (len(source),):
        raise InputError(f"rows: expected one number for each of {len(source)} images, got {tuple(numbers.shape)}")
    step = max(1, batch_size // n)
    parts = []
    with at_rest(segmenter.to(place)), torch.no_grad():
        for at in torch.arange(len(source)).split(step) if len(source) else ():
            images = source[at].x
            check_images(images, "x")
            parts.append(_sampled(images.to(place), segmenter, n, numbers[at], seed, batch_size))
    return Segmentations.cat(parts) if parts else blank(segmenter, n, source.shape, seed)


def blank(segmenter: MaskSampler, n: int, shape: tuple[int, ...], seed: int = 0) -> Segmentations:
    """A result of no rows.

    Args:
        segmenter: The network.
        n: Masks an image.
        shape: Shape `(c, *space)` of an image.
        seed: Seed of the draws.
    """
    empty, none = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    return Segmentations(
        masks=torch.zeros(0, n, *shape[1:], dtype=torch.uint8), verdict=none, row=none, diversity=empty,
        nfe_encoder=none, nfe_unet_forward=none, seconds=empty, segmenter=name_of(segmenter), samples=n, seed=seed,
        labels=names_of(segmenter),
    )  # fmt: skip


def name_of(segmenter: MaskSampler) -> str:
    """What a network that draws masks is called in results."""
    return type(segmenter).__name__


def names_of(segmenter: MaskSampler) -> list[str]:
    """Names of a network's labels, the background first."""
    return ["background", "region"] if segmenter.classes == 2 else [str(k) for k in range(segmenter.classes)]


def _check(segmenter: object, n: int, batch_size: int) -> None:
    """Refuse what draws no masks, and too few or too many of them."""
    if not isinstance(segmenter, MaskSampler):
        raise InputError(
            "segmenter: expected a network that draws masks (cfx train with objective masks, cfx.load), got "
            f"{type(segmenter).__name__}; one that gives a single mask has no distribution"
        )
    if not 2 <= n < MOST:
        raise InputError(
            f"n: expected 2 masks an image or more, below {MOST}, got {n}; one mask says nothing of others"
        )
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")


def _sampled(
    x: Float[Tensor, "b c *space"], segmenter: MaskSampler, n: int, row: Int[Tensor, " b"], seed: int, batch_size: int
) -> Segmentations:
    """The result of some images."""
    start = time.perf_counter()
    code = _encoded(x, segmenter)
    finite = torch.stack([v.isfinite().reshape(len(v), -1).all(1) for v in code]).all(0).cpu()
    masks = _drawn(code, segmenter, n, row, seed, batch_size)
    masks[~finite] = 0
    same = Drawings.of(masks, masks, segmenter.classes).among_samples.distance
    apart = torch.where(finite, within(same, "u").float(), torch.nan)
    equal = (masks == masks[:, :1]).flatten(1).all(1)
    verdict = torch.where(finite, torch.where(equal, int(Drawn.COLLAPSED), int(Drawn.SAMPLED)), int(Drawn.REFUSED))
    once = torch.ones(len(x), dtype=torch.long)
    return Segmentations(
        masks=masks, verdict=verdict, row=row, diversity=apart, nfe_encoder=once,
        nfe_unet_forward=once * n * segmenter.nfe,
        seconds=torch.full((len(x),), (time.perf_counter() - start) / len(x)),
        segmenter=name_of(segmenter), samples=n, seed=seed, labels=names_of(segmenter),
    )  # fmt: skip


def _encoded(x: Tensor, segmenter: MaskSampler) -> Code:
    """What the network keeps of images.

    Raises:
        InputError: it cannot take them.
    """
    try:
        code: Code = segmenter.encode(x)
    except RuntimeError as error:
        raise InputError(f"segmenter: failed on images of shape {tuple(x.shape)}: {error}") from error
    return code


def _drawn(code: Code, segmenter: MaskSampler, n: int, row: Tensor, seed: int, batch_size: int) -> Tensor:
    """The masks, on the CPU, so many at a time."""
    b = len(row)
    image = torch.arange(b).repeat_interleave(n)
    counter = row.repeat_interleave(n) * MOST + torch.arange(n).repeat(b)
    parts = []
    for at in torch.arange(b * n).split(batch_size):
        some = tuple(v[image[at].to(v.device)] for v in code)
        parts.append(segmenter.draw(some, seed=seed, row=counter[at].to(code[0].device)).cpu())
    return torch.cat(parts).view(b, n, *parts[0].shape[1:])
