"""Tensors to pictures: flat views of 2D and 3D images, colours, outlines, data URIs."""

import base64
import io
import math

import numpy as np
from matplotlib import colormaps
from matplotlib.image import imsave
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.float32]
DIVERGING = "RdBu_r"
GAP = 2


def array(value: Tensor) -> Pixels:
    """A tensor of any device and dtype as float32 numpy."""
    found: Pixels = value.detach().cpu().float().numpy()
    return found


def centre(difference: Pixels) -> tuple[int, ...]:
    """Index of the centre of mass of |difference| `(*space)`; the middle of the image where nothing changed."""
    mass = np.abs(np.nan_to_num(difference)).astype(np.float64)
    total = mass.sum()
    if not total > 0:
        return tuple(n // 2 for n in mass.shape)
    return tuple(int(np.tensordot(np.indices(mass.shape)[i], mass, mass.ndim) / total) for i in range(mass.ndim))


def flat(image: Pixels, at: tuple[int, ...]) -> Pixels:
    """A picture of `(*space)`: itself in 2D; in 3D its three orthogonal slices through `at`, side by side, NaN between.

    Rows of the picture run downwards along the first axis of each slice, as stored.
    """
    if image.ndim == 2:
        return image
    slices: list[Pixels] = [np.take(image, at[axis], axis) for axis in range(3)]
    height = max(s.shape[0] for s in slices)
    cells = []
    for i, part in enumerate(slices):
        above = (height - part.shape[0]) // 2
        cells.append(np.pad(part, ((above, height - part.shape[0] - above), (0, 0)), constant_values=np.nan))
        if i < 2:
            cells.append(np.full((height, GAP), np.nan, part.dtype))
    return np.concatenate(cells, 1)


def picture(image: Pixels, at: tuple[int, ...]) -> Pixels:
    """Colours `(h, w, 4)` in [0, 1] of an image `(c, *space)` in [-1, 1]: RGB for 3 channels, else grey."""
    shown = image if len(image) == 3 else image[[0, 0, 0]]
    planes = np.stack([flat(channel, at) for channel in shown], -1)
    alpha = np.isfinite(planes).all(-1, keepdims=True)
    colours: Pixels = np.concatenate([(np.nan_to_num(planes).clip(-1, 1) + 1) / 2, alpha], -1).astype(np.float32)
    return colours


def difference(change: Pixels, at: tuple[int, ...], limit: float) -> Pixels:
    """Colours `(h, w, 4)` of a signed change `(c, *space)`, averaged over channels, on the scale [-limit, limit]."""
    plane = flat(change.mean(0), at)
    colours = colormaps[DIVERGING]((np.nan_to_num(plane) / limit + 1) / 2)
    colours[..., 3] = np.isfinite(plane)
    shown: Pixels = colours.astype(np.float32)
    return shown


def symmetric_limit(changes: list[Pixels]) -> float:
    """One symmetric colour limit for many changes: the 99.5 % quantile of the non-zero ones, to two digits upwards."""
    sizes = np.concatenate([np.abs(c.mean(1)).ravel() for c in changes])
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not sizes.size:
        return 1.0
    top = float(np.quantile(sizes, 0.995))
    unit = 10.0 ** (math.floor(math.log10(top)) - 1)
    return min(2.0, math.ceil(top / unit - 1e-9) * unit)


def outline(mask: NDArray[np.bool_]) -> str:
    """SVG path, in pixel coordinates, of the border of a mask `(h, w)`."""
    padded = np.pad(mask, 1).astype(np.int8)
    across = _lines(np.diff(padded, axis=0)[:, 1:-1] != 0)
    down = _lines((np.diff(padded, axis=1)[1:-1] != 0).T)
    return "".join(f"M{a} {i}H{b}" for i, a, b in across) + "".join(f"M{i} {a}V{b}" for i, a, b in down)


def _lines(edges: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Runs of true cells in every row, as (row, begin, end)."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    begins, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
    return [(int(i), int(a), int(b)) for (i, a), (_, b) in zip(begins, ends, strict=True)]


def data_uri(colours: Pixels) -> str:
    """RGBA colours in [0, 1] as a PNG inside a `data:` address."""
    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray((colours * 255).round().astype(np.uint8)), format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def colour_bar() -> str:
    """The diverging scale, low to high, as a one-row picture."""
    return data_uri(colormaps[DIVERGING](np.linspace(0, 1, 256))[None].astype(np.float32))
