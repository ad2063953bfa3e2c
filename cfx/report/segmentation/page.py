"""The page: how sure the outlines are, in words, readers against samples, and the images, least sure first.

What it holds is bounded whatever the number of rows: pictures of the `CARDS` least sure images, the table by `LINES`.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cfx.atlas import Atlas
from cfx.display.catalogue import metric
from cfx.display.templates import render
from cfx.report.numbers import count, number, percent, probability
from cfx.report.segmentation import figures
from cfx.report.segmentation.figures import Shown
from cfx.report.segmentation.words import least_sure_first, of_all, of_image, probability_like, said, size_word
from cfx.segmentation import Drawn, Segmentations
from cfx.segmentation.summary import named

CARDS = 24
"""Most images that are shown."""
LINES = 500
"""Most rows of the table."""
_FIGURE = 3  # images of the figure


@dataclass(frozen=True)
class Card:
    """One image with its masks, and what is known of it."""

    name: str
    verdict: str
    sentences: Sequence[str]
    shown: Shown
    sizes: str


def segmentation_page(
    atlas: Atlas[Segmentations], rows: Mapping[str, Tensor], summary: Mapping[str, Any], title: str, figure: bytes,
    warned: Sequence[str] = (),
) -> str:  # fmt: skip
    """The page as HTML, self-contained.

    Args:
        atlas: All rows.
        rows: The figures of every image, in the order of the atlas.
        summary: Their means, as in `summary.json`.
        title: Name of the run.
        figure: Readers against samples, as `segmentation_figure` gives it.
        warned: What the run warned of.
    """
    drawn, names = atlas.read(images=False), atlas.read_cohort(images=False).ids
    order, columns = least_sure_first(rows), _columns(rows, drawn)
    return render(
        "cfx.report",
        "segmentation.html.j2",
        title=title,
        subtitle=f"{count(len(drawn), 'image')}, {drawn.samples} masks each, drawn by {drawn.segmenter}",
        sentences=of_all(drawn, rows, summary),
        warned=warned,
        tiles=_tiles(drawn, summary),
        figure="data:image/png;base64," + base64.b64encode(figure).decode(),
        cards=_cards(atlas, rows, summary, order[:CARDS]),
        scale=figures.scale(),
        headings=[metric(name).heading for name in columns],
        rows=[
            (names[i], _verdict(drawn, i), [number(float(rows[name][i])) for name in columns]) for i in order[:LINES]
        ],
        hidden=max(0, len(drawn) - LINES),
        readers="reader_diversity" in rows,
        limits=_limits(),
        made=_made(atlas),
    )


def segmentation_figure(atlas: Atlas[Segmentations], rows: Mapping[str, Tensor], unit: str) -> bytes:
    """Readers against samples as PNG: of the least sure image, one in the middle, and the surest.

    Args:
        atlas: All rows.
        rows: The figures of every image, in the order of the atlas.
        unit: Unit of the volume.
    """
    order = least_sure_first(rows)
    positions = list(dict.fromkeys((order[0], order[len(order) // 2], order[-1])))
    shown = _shown(atlas, positions)
    drawn, buffer = figures.against_readers([one for _, one in shown], [name for name, _ in shown], unit), io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=130, facecolor="white")
    return buffer.getvalue()


def _shown(atlas: Atlas[Segmentations], positions: Sequence[int]) -> list[tuple[str, Shown]]:
    """Names and pictures of the images at some positions, in their order."""
    rows = sorted(atlas.rows[i] for i in positions)
    found, cohort, at = atlas.read(rows), atlas.read_cohort(rows), {row: k for k, row in enumerate(rows)}
    return [(cohort.ids[k], Shown.of(found, cohort, k)) for k in (at[atlas.rows[i]] for i in positions)]


def _cards(
    atlas: Atlas[Segmentations], rows: Mapping[str, Tensor], summary: Mapping[str, Any], positions: Sequence[int]
) -> list[Card]:
    """Cards of the images at some positions, in their order."""
    drawn, unit, level = atlas.read(images=False), str(summary["volume_unit"]), float(summary["level"])
    found = []
    for i, (name, one) in zip(positions, _shown(atlas, positions), strict=True):
        values = {key: float(value[i]) for key, value in rows.items()}
        sentences = of_image(values, drawn.samples, drawn.labels, unit, level)
        sizes = f"{size_word(unit)} of each drawn outline, from 0 to {number(one.largest)} {said(unit)}"
        found.append(Card(name, _verdict(drawn, i), sentences, one, sizes))
    return found


def _verdict(drawn: Segmentations, i: int) -> str:
    return Drawn(int(drawn.verdict[i])).name.lower()


def _columns(rows: Mapping[str, Tensor], drawn: Segmentations) -> list[str]:
    """What the table shows of every image."""
    sizes = [name for key in ("volume", "volume_from", "volume_to") for name in named(key, drawn.labels)]
    wanted = ["empty_share", *sizes, "agreement", "diversity", "reader_diversity", f"ged_{drawn.samples}"]
    return [name for name in wanted if name in rows]


def _tiles(drawn: Segmentations, summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Value, name and remark of the figures at the top."""
    found = []
    if "agreement" in summary:
        found.append((percent(summary["agreement"]), "agreement", "of what two outlines of an image cover, shared"))
    if "empty_share" in summary:
        found.append((percent(summary["empty_share"]), "empty masks", "of all that were drawn"))
    if "reader_diversity" in summary and "diversity" in summary:
        theirs = probability(summary["reader_diversity"])
        found.append((probability(summary["diversity"]), "diversity", f"1 - IoU of two masks; two readers {theirs}"))
        gap = probability_like(summary["ged_debiased"])
        found.append((gap, "distance to the readers", "GED, free of the numbers of masks and readers; 0 is theirs"))
    spent = f"and {summary['nfe_encoder']:.3g} of what looks at it; {summary['seconds_per_image']:.2g} s"
    found.append((f"{summary['nfe_unet_forward']:.3g}", "evaluations an image", spent))
    return found


def _limits() -> list[str]:
    return [
        "Outlines differ as the readers of the training images did. On an image unlike those they may differ too "
        "little or too much; cfx ood says whether an image is one that the network knows.",
        "An interval of the size holds outlines that were drawn. Readers drew like that; what is under the skin may be "
        "larger than any of them.",
        "The entropy of a place says how many outlines change there, not what is there.",
    ]


def _made(atlas: Atlas[Segmentations]) -> list[tuple[str, str]]:
    """What the rows were made of, and where."""
    made = atlas.attributes.get("made", {})
    found = [(name, str(made.get(name, ""))) for name in ("command", "hardware", "date")]
    return [(k, v) for k, v in found if v] + sorted(atlas.attributes["cfx_fingerprint"].items())
