"""How far two images are apart: at each voxel, and as one number an image.

    l1             |a - b|
    l2             (a - b)^2
    ssim           1 - SSIM,  SSIM = (2 m_a m_b + C1) (2 s_ab + C2) / ((m_a^2 + m_b^2 + C1) (s_a^2 + s_b^2 + C2))
    perceptual     squared distance of the channel-normalised maps of a feature extractor, summed over the maps

m, s^2 and s_ab are local means, variances and covariance under a Gaussian of 1.5 voxels (11 taps an axis), the second
factor is the contrast and structure term, and C1 = (.01 L)^2, C2 = (.03 L)^2 with L = 2, the range of images. All are
averaged over channels and voxels. The perceptual distance is that of the extractor it is given, and is called LPIPS
nowhere: it has none of its learnt weights.

References: Wang, Bovik, Sheikh, Simoncelli (2004), "Image quality assessment: from error visibility to structural
similarity"; Zhang, Isola, Efros, Shechtman, Wang (2018), "The unreasonable effectiveness of deep features".
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cfx.core import geometry
from cfx.core.errors import InputError
from cfx.models.perceptual import feature_gap
from cfx.ood.detector import Learn

KINDS = ("l1", "l2", "ssim", "perceptual")
"""The distances."""

Image = Float[Tensor, "b c *space"]
_WIDTH = 1.5
_C1, _C2 = 0.02**2, 0.06**2


def per_image(map_: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """Mean of each image's map."""
    return map_.flatten(1).mean(1)


def error_map(kind: str, a: Image, b: Image) -> Float[Tensor, "b 1 *space"]:
    """The distance at every voxel, averaged over channels."""
    found = ssim_error(a, b) if kind == "ssim" else (a - b).abs() if kind == "l1" else (a - b).square()
    return found.mean(1, keepdim=True)


def ssim_error(a: Image, b: Image) -> Image:
    """1 - SSIM at every voxel of each channel, between 0 and 2."""
    means = geometry.smooth(torch.cat([a, b, a * a, b * b, a * b], 1), _WIDTH)
    m_a, m_b, aa, bb, ab = means.chunk(5, 1)
    luminance = (2 * m_a * m_b + _C1) / (m_a**2 + m_b**2 + _C1)
    contrast = (2 * (ab - m_a * m_b) + _C2) / (aa - m_a**2 + bb - m_b**2 + _C2)
    return 1 - luminance * contrast


def feature_error(
    a: Sequence[Tensor], b: Sequence[Tensor], space: tuple[int, ...]
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b 1 *space"] | None]:
    """The perceptual distance of each pair, and where it is.

    Args:
        a: Maps `(b, d, *coarse)` or vectors `(b, d)` of some images.
        b: Those of others.
        space: Size of the images, to which maps are repeated; no map where one of them is a vector.
    """
    gaps = [feature_gap(u, v) for u, v in zip(a, b, strict=True)]
    total = torch.stack([per_image(gap[:, None]) for gap in gaps]).sum(0)
    if any(gap.ndim == 1 for gap in gaps):
        return total, None
    return total, torch.stack([on_grid(gap[:, None], space) for gap in gaps]).sum(0)


def on_grid(map_: Float[Tensor, "b 1 *coarse"], space: tuple[int, ...]) -> Float[Tensor, "b 1 *space"]:
    """A coarse map on the grid of the images: each of its voxels repeated."""
    return map_ if tuple(map_.shape[2:]) == space else functional.interpolate(map_, size=space, mode="nearest")


def check_kind(kind: str, known: Sequence[str] = KINDS) -> None:
    """Refuse an unknown distance.

    Raises:
        InputError: it is none of those known.
    """
    if kind not in known:
        raise InputError(f"error: expected one of {list(known)}, got {kind!r}")


def check_features(kind: str, learn: Learn) -> None:
    """Refuse a perceptual distance without a feature extractor.

    Raises:
        InputError: there is none.
    """
    if kind == "perceptual" and learn.tools.features is None:
        raise InputError(
            "features: expected a function of images to features, for the error is 'perceptual'; got none: pass "
            "features=..., cfx.models.features.FeatureMaps(network), say"
        )
