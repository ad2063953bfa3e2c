"""`cfx sharpness CONFIG`: configuration, run, and what it leaves behind."""

from cfx.atlas import Atlas
from cfx.core.statistics import bootstrap_interval
from cfx.data import DataConfig, open_cohort
from cfx.display.catalogue import metric
from cfx.display.templates import render
from cfx.runtime.config import RunConfig
from cfx.runtime.folder import RunFolder
from tests.capability.room import Sharpness, measure


class SharpnessConfig(RunConfig):
    """Which images, and how."""

    data: DataConfig
    """Images."""
    method: str = "forward"
    """Name of the method."""


CONFIG = SharpnessConfig


def command(config: SharpnessConfig, words: str) -> str:
    """Run, and say what came out."""
    source, folder = open_cohort(config.data), RunFolder(config.folder)
    shape = source.shape
    like = Sharpness.blank(0, {"c": shape[0], "space": shape[1:]}, method=config.method)
    atlas = Atlas.create(folder / "atlas.zarr", like, rows=range(len(source)), ids=source.ids, shard=4)
    for part in measure(source, config.method, atlas.shards()):
        atlas.write(part)
    values = atlas.read(images=False).sharpness
    low, high = bootstrap_interval(values)
    summary = folder.summary({"sharpness": values.mean(), "sharpness_low": low, "sharpness_high": high})
    folder.config(config)
    folder.page(render("tests.capability", "page.html.j2", metric=metric("sharpness"), values=summary))
    return f"{metric('sharpness').heading} {metric('sharpness').spread(summary)} by `{words}`"
