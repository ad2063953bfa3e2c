"""The metrics of this room in the catalogue: what tables, pages and docs call them and say of them.

What changes with the number of samples alone carries that number in its name and in its heading.
"""

from cfx.display.catalogue import Better, Metric, register

SAMPLES = (4, 16, 50)
"""Numbers of samples that figures are published for."""
_BY_SAMPLES: tuple[tuple[str, str, str, Better], ...] = (
    (
        "ged",
        "GED",
        "Squared generalised energy distance (1 - IoU) to the readers; of few samples it is larger, by their diversity "
        "over their number, so only equal numbers compare.",
        "lower",
    ),
    ("hm_iou", "HM-IoU", "IoU of samples and readers matched one to one, both repeated to equal numbers.", "higher"),
    (
        "best_m_iou",
        "best-M IoU",
        "IoU of the samples that fit the readers best, one a reader; rises with the number of samples, no HM-IoU.",
        "higher",
    ),
    ("s_c", "S_c", "Share of what any reader drew that any sample has; 1 for masks of the whole image.", "higher"),
    ("d_max", "D_max", "Mean over readers of the Dice of the sample that fits best.", "higher"),
    ("d_a", "D_a", "Whether samples differ among each other as much as readers do.", "higher"),
    ("ci", "CI", "Harmonic mean of S_c, D_max and D_a.", "higher"),
    ("ci_printed", "CI as printed", "3abc / (a + b + c) of the same three, below their harmonic mean.", "higher"),
)


def register_for(n: int, which: str = "") -> None:
    """Put the figures that change with the number of samples into the catalogue, for n of them.

    Args:
        n: How many.
        which: Which of an image's samples, as the end of the names; the plain ones by default.
    """
    said = f"Of {n} samples an image{f', {which} ones' if which else ''}."
    register(
        *(
            Metric("_".join(filter(None, (name, str(n), which))), f"{heading}_{n}{f', {which}' if which else ''}",
                   f"{meaning} {said}", better)
            for name, heading, meaning, better in _BY_SAMPLES
        )
    )  # fmt: skip


for _n in SAMPLES:
    register_for(_n)

register(
    Metric(
        "ged_limit",
        "GED_inf",
        "Squared generalised energy distance to these readers with infinitely many samples, estimated without bias.",
        "lower",
    ),
    Metric(
        "ged_debiased",
        "GED debiased",
        "The same with infinitely many samples and readers: 0 on average for the true distribution.",
        "lower",
    ),
    Metric("samples", "masks an image", "How many masks were drawn of every image.", "", ".0f"),
    Metric("empty_share", "empty masks", "Share of the masks that hold nothing."),
    Metric("agreement", "agreement", "Mean IoU of two masks of an image of which neither is empty."),
    Metric("volume", "volume", "Mean volume, of slices area, of the masks of an image that hold anything.", "", ".1f"),
    Metric("volume_from", "from", "Lower end of the interval of an image's volume.", "", ".1f"),
    Metric("volume_to", "to", "Upper end of the interval of an image's volume.", "", ".1f"),
    Metric("volume_width", "width of its interval", "How wide the interval of an image's volume is.", "", ".1f"),
    Metric(
        "nfe_encoder", "encoder passes", "Times an image is looked at, whatever the number of masks.", "lower", ".3g"
    ),
    Metric(
        "diversity", "diversity", "Mean distance (1 - IoU) between two samples of an image; near the readers' is best."
    ),
    Metric("reader_diversity", "readers' diversity", "Mean distance (1 - IoU) between two readers of an image."),
    Metric("ncc", "NCC", "Correlation of the samples' uncertainty with their error against each reader.", "higher"),
    Metric(
        "consensus_dice",
        "consensus Dice",
        "Dice of what most samples have, on the voxels on which all readers agree.",
        "higher",
    ),
    Metric("volume_crps", "CRPS of the volume", "Continuous ranked probability score of the volume.", "lower", ".1f"),
    Metric(
        "reader_ece",
        "readers' ECE",
        "Expected calibration error: the share of samples that have a voxel against the share of readers who do.",
        "lower",
        ".4f",
    ),
)
