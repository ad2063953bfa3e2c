"""Pictures of drawn masks: outlines over their image, the entropy map, and readers against samples in one figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.display.images import Pixels, array, centre, data_uri, flat, outline, picture
from cfx.report.audit.figures import HIT, INK, blank
from cfx.report.segmentation.words import said
from cfx.segmentation.result import Segmentations
from cfx.segmentation.summary import entropy, probability, volumes

MAP = "magma"
"""Colours of an entropy map."""
_MOST = 32  # outlines of an image that are drawn
_BINS = 16
_TICK = 0.18  # of the height of a histogram

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Shown:
    """One image with its masks, flat: of a volume the three planes through where the masks are.

    Attributes:
        image: Colours of the image.
        drawn: The masks, at most `_MOST`, of any foreground class.
        readers: Those of the readers.
        entropy: The entropy map, in nats.
        volume: Volume of every mask, all classes together.
        reader_volume: The same of the readers.
        most: Entropy where classes are as uncertain as can be.
    """

    image: Pixels
    drawn: list[Mask]
    readers: list[Mask]
    entropy: Pixels
    volume: list[float]
    reader_volume: list[float]
    most: float

    @classmethod
    def of(cls, found: Segmentations, cohort: Cohort, k: int) -> "Shown":
        """What to show of image k."""
        masks, classes = found.masks[k : k + 1], len(found.labels)
        at = centre(array(probability(masks, classes)[0].sum(0)))
        readers = None if cohort.readings is None else cohort.readings[k : k + 1]
        voxel = 1.0 if cohort.spacing is None else float(cohort.spacing[k].double().prod())
        return cls(
            image=picture(array(cohort.x[k]), at),
            drawn=_flat(masks[0, :_MOST], at),
            readers=[] if readers is None else _flat(readers[0], at),
            entropy=flat(array(entropy(masks, classes)[0]), at),
            volume=_volume(masks, voxel),
            reader_volume=[] if readers is None else _volume(readers, voxel),
            most=math.log(classes),
        )

    @property
    def grey(self) -> str:
        """The image as a picture in a `data:` address."""
        return data_uri(self.image)

    @property
    def coloured(self) -> str:
        """The entropy map as a picture in a `data:` address."""
        colours: Pixels = colormaps[MAP](np.nan_to_num(self.entropy) / self.most).astype(np.float32)
        colours[..., 3] = np.isfinite(self.entropy)
        return data_uri(colours)

    @property
    def paths(self) -> list[tuple[str, str]]:
        """Outlines as SVG paths: samples, and over them readers."""
        kinds = (("drawn", self.drawn), ("reader", self.readers))
        return [(kind, outline(mask)) for kind, masks in kinds for mask in masks if mask.any()]

    @property
    def largest(self) -> float:
        """The largest volume."""
        return max([*self.volume, *self.reader_volume])

    @property
    def rug(self) -> list[tuple[str, str]]:
        """The volumes as ticks, in per cent of the largest: samples above, readers below."""
        top = self.largest or 1.0
        rows = (("drawn", self.volume, "0V9"), ("reader", self.reader_volume, "11V20"))
        return [(kind, "".join(f"M{100 * v / top:.1f} {bar}" for v in some)) for kind, some, bar in rows if some]


def _flat(masks: Tensor, at: tuple[int, ...]) -> list[Mask]:
    return [np.nan_to_num(flat(array(mask != 0), at)) > 0.5 for mask in masks]


def _volume(masks: Tensor, voxel: float) -> list[float]:
    found: list[float] = volumes(masks != 0, voxel=voxel)[0, :, 0].tolist()
    return found


def scale() -> str:
    """The colours of an entropy map, low to high, as a one-row picture."""
    return data_uri(colormaps[MAP](np.linspace(0, 1, 256))[None].astype(np.float32))


def against_readers(shown: Sequence[Shown], titles: Sequence[str], unit: str) -> Figure:
    """Readers against samples, an image a line: outlines of both, the entropy map, and the volumes.

    Args:
        shown: The images.
        titles: What each is called.
        unit: Unit of the volumes.
    """
    figure = blank(11.0, 2.7 * len(shown) + 0.3)
    lines = figure.subplots(len(shown), 4, squeeze=False, width_ratios=(1, 1, 1, 1.25))
    for axes, one, title in zip(lines, shown, titles, strict=True):
        for place, masks, colour in ((axes[0], one.readers, HIT), (axes[1], one.drawn, INK)):
            _outlined(place, one, masks, colour)
        axes[2].imshow(one.entropy, cmap=MAP, vmin=0, vmax=one.most, interpolation="nearest")
        axes[2].set(xticks=[], yticks=[])
        _histogram(axes[3], one, unit)
        axes[0].set_ylabel(title, fontsize=8)
    heads = (
        _named("reader", shown[0].readers),
        _named("drawn outline", shown[0].volume),
        "entropy",
        "size of outlines",
    )
    for place, head in zip(lines[0], heads, strict=True):
        place.set_title(head, fontsize=9)
    return figure


def _named(noun: str, some: Sequence[object]) -> str:
    return f"{len(some)} {noun}{'' if len(some) == 1 else 's'}" if some else f"no {noun}s"


def _outlined(axes: Axes, one: Shown, masks: Sequence[Mask], colour: str) -> None:
    """An image with the outlines of masks."""
    axes.imshow(one.image, interpolation="nearest")
    for mask in masks:
        if mask.any():
            axes.contour(mask, levels=[0.5], colors=[colour], linewidths=0.9, alpha=0.75)
    axes.set(xticks=[], yticks=[])


def _histogram(axes: Axes, one: Shown, unit: str) -> None:
    """The volumes of the masks as bars, those of the readers as ticks on the axis."""
    top = one.largest or 1.0
    axes.hist(one.volume, bins=np.linspace(0, top, _BINS + 1).tolist(), color=INK, alpha=0.85, label="drawn")
    if one.reader_volume:
        axes.vlines(
            one.reader_volume, 0, _TICK, HIT, linewidth=2, label="readers", transform=axes.get_xaxis_transform()
        )
    axes.set_xlabel(said(unit), fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
