"""Tensors to pictures: flat views of 2D and 3D images, colours, outlines, data URIs."""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import label
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


def plane(image: Pixels, axis: int, at: int) -> Pixels:
    """One slice `(h, w)` of a volume as a reader of images holds it: top, or front in axial slices, is up.

    Axes of a volume run to the right, the front and the top. Axis 0 gives the sagittal slice (front to the right), 1
    the coronal and 2 the axial one (the right of the subject to the right).
    """
    found: Pixels = np.take(image, at, axis).T[::-1]
    return found


def flat(image: Pixels, at: tuple[int, ...]) -> Pixels:
    """A picture of `(*space)`: itself in 2D; in 3D its three `plane`s through `at`, side by side, NaN between."""
    if image.ndim == 2:
        return image
    slices = [plane(image, axis, at[axis]) for axis in range(3)]
    height = max(s.shape[0] for s in slices)
    cells = []
    for i, part in enumerate(slices):
        above = (height - part.shape[0]) // 2
        cells.append(np.pad(part, ((above, height - part.shape[0] - above), (0, 0)), constant_values=np.nan))
        if i < 2:
            cells.append(np.full((height, GAP), np.nan, part.dtype))
    return np.concatenate(cells, 1)


def stacked(image: Pixels, places: Sequence[int]) -> Pixels:
    """Axial slices of a volume `(c, *space)`, one below the other, as a flat image `(c, h, w)`."""
    return np.stack([np.concatenate([plane(channel, 2, at) for at in places]) for channel in image])


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


def hatch(mask: NDArray[np.bool_], gap: int) -> str:
    """SVG path, in pixel coordinates, of the `diagonals` of a mask `(h, w)`.

    Lines need no pattern that a page would have to name, and stay apart from colours on paper and in any theme.
    """
    return "".join(f"M{x} {y}l{n} -{n}" for x, y, n in diagonals(mask, gap))


def diagonals(mask: NDArray[np.bool_], gap: int) -> list[tuple[int, int, int]]:
    """Lines that hatch a mask `(h, w)`: those of its pixels with i + j = 0 mod gap, and all of a piece without any.

    Returns:
        Of every line (x, y of its lower left end, pixels that it crosses).
    """
    at = np.indices(mask.shape)
    diagonal = at.sum(0)
    on = mask & (diagonal % gap == 0)
    pieces, _ = label(mask)
    on |= mask & ~np.isin(pieces, pieces[on])
    lean = np.zeros((sum(mask.shape), mask.shape[1]), np.bool_)
    lean[diagonal[on], at[1][on]] = True  # a diagonal is a row
    return [(a, k - a + 1, b - a) for k, a, b in _lines(lean)]


def _lines(edges: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Runs of true cells in every row, as (row, begin, end)."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    begins, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
    return [(int(i), int(a), int(b)) for (i, a), (_, b) in zip(begins, ends, strict=True)]


def data_uri(colours: Pixels) -> str:
    """RGBA colours in [0, 1] as a PNG inside a `data:` address: to 8 bits exact, with a palette where one suffices."""
    pixels = np.ascontiguousarray((colours * 255).round().astype(np.uint8))
    buffer = io.BytesIO()
    _image(pixels).save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    """An image of RGBA pixels `(h, w, 4)`; grey values and colour scales are at most 256 colours."""
    whole = Image.fromarray(pixels)
    opaque = not (pixels[..., 3] < 255).any()
    if (found := whole.getcolors(256)) is None:
        return whole.convert("RGB") if opaque else whole
    palette = np.sort(np.array([colour for _, colour in found], np.uint8).view("<u4")[:, 0])
    image = Image.fromarray(np.searchsorted(palette, pixels.view("<u4")[..., 0]).astype(np.uint8))
    colours = palette.view(np.uint8).reshape(-1, 4)
    image.putpalette(colours[:, :3].tobytes())
    if not opaque:
        image.info["transparency"] = colours[:, 3].tobytes()
    return image


def colour_bar() -> str:
    """The diverging scale, low to high, as a one-row picture."""
    return data_uri(colormaps[DIVERGING](np.linspace(0, 1, 256))[None].astype(np.float32))


def overlaid(image: Pixels, values: Pixels, at: tuple[int, ...], limit: float | None = None) -> Pixels:
    """Colours `(h, w, 4)` of a signed map over its image: red above zero, blue below, the pale image where it is zero.

    Args:
        image: `(c, *space)` in [-1, 1].
        values: `(*space)`.
        at: Where slices of a volume are taken.
        limit: Value of full colour; by default the 99.5 % quantile of the sizes of this map.
    """
    top = float(np.quantile(np.abs(values), 0.995)) if limit is None else limit
    plane = np.nan_to_num(flat(values, at)) / (top or 1.0)
    below, above = picture(image, at), colormaps[DIVERGING](plane.clip(-1, 1) / 2 + 0.5).astype(np.float32)
    weight = np.sqrt(np.abs(plane).clip(0, 1))[..., None].astype(np.float32)
    pale = 0.5 + 0.5 * below[..., :3]  # the image fades towards white, so that the colours are seen on dark ground
    mixed: Pixels = np.concatenate([(1 - weight) * pale + weight * above[..., :3], below[..., 3:]], -1)
    return mixed
