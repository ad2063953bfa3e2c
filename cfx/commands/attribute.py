"""One run of attribution: images and a classifier in, a folder with maps, a page and a summary out."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from cfx.atlas import Atlas
from cfx.attribution import Attributions, Completeness, Method, attribute, build_attribution
from cfx.commands.filling import Filling, FillingConfig, asked, lines
from cfx.commands.rows import network_print
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError, heard
from cfx.counterfactual.result import Counterfactuals
from cfx.data import DataConfig, open_cohort
from cfx.display.catalogue import Metric, register
from cfx.models.opening import Network, open_network
from cfx.report.attribution import attribution_page
from cfx.runtime.config import RunConfig, UserPath
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.processes import make_accelerator
from cfx.runtime.provenance import source_print
from cfx.runtime.shares import is_main

SHOWN = (
    "n", "maps_complete", "maps_incomplete", "maps_undefined", "maps_refused", "completeness_error_median",
    "completeness_error_max", "nfe_classifier", "nfe_classifier_backward", "seconds_per_image",
)  # fmt: skip
"""What the console shows of a summary."""
register(
    Metric(
        "maps_complete", "complete maps", "Maps that sum to the change of the output, to a relative 1e-4.", "", ".0f"
    ),
    Metric("maps_incomplete", "incomplete maps", "Maps that should sum to it and do not.", "lower", ".0f"),
    Metric("maps_undefined", "undefined maps", "Maps of which no sum is promised for such a network.", "", ".0f"),
    Metric("maps_refused", "refused maps", "Images of which no map can be had.", "lower", ".0f"),
    Metric("completeness_error_median", "completeness, median", "Median completeness error.", "lower", ".1e"),
    Metric("completeness_error_max", "completeness, worst", "Largest completeness error.", "lower", ".1e"),
)


class AttributeConfig(FillingConfig, RunConfig):
    """Which images, which classifier, which method."""

    classifier: Network
    """The classifier: its path, or its path and how it wants images and answers."""
    method: str = "integrated-gradients"
    """Name of the method (`cfx.attribution.ATTRIBUTIONS`)."""
    settings: Mapping[str, Any] = Field(default_factory=dict)
    """Settings of the method that differ from its defaults."""
    target: int | str | None = None
    """Class that is asked about, by number or by name; by default the one that the classifier predicts."""
    baseline: Literal["zero", "black", "mean"] = "zero"
    """What images are compared with; `mean` is that of `reference`."""
    counterfactuals: UserPath | None = None
    """An atlas of counterfactuals of the same images, as `cfx explain` writes it: then these are the baseline."""
    reference: DataConfig | None = None
    """Images whose mean is the baseline `mean`."""
    output: Literal["logit", "margin"] = "logit"
    """What is divided up: the logit of the target, or its margin over the best other class."""


def built(name: str, settings: Mapping[str, Any]) -> Method:
    """A method with settings as YAML has them; lists, which is all that YAML has, become tuples."""
    return build_attribution(name, **{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


@in_its_folder
def attribute_run(config: AttributeConfig, words: str = "") -> dict[str, Any]:
    """Make maps and write `atlas.zarr`, `report.html`, `summary.json` and `config.yaml`.

    Under `accelerate launch` the processes share the images by whole atlas shards; the same command goes on with an
    interrupted run.

    Args:
        config: What to explain.
        words: The command line, for the record.

    Returns:
        The flat figures of `summary.json`.

    Raises:
        InputError, CheckpointError, AtlasError: as `cfx.attribute`, `open_network` and `Atlas`.
    """
    with heard() as warned:
        run = _Run(config, words)
        atlas = run.filled()
        found = summarise(atlas.read(images=False))
        run.folder.summary(found)
        if is_main():
            atlas.note(warnings=warned)
            run.folder.page(attribution_page(atlas, config.name, warned))
    return found


class _Run:
    """The objects of a run, loaded and checked once."""

    def __init__(self, config: AttributeConfig, words: str) -> None:
        self.config, self.words, self.accelerator = config, words, make_accelerator()
        self.folder, self.method = RunFolder(config.folder), built(config.method, config.settings)
        self.classifier = open_network(config.classifier, "classifier").to(self.accelerator.device)
        self.source = asked(config)
        self.reference = None if config.reference is None else open_cohort(config.reference)
        self.known = None if config.counterfactuals is None else Atlas(config.counterfactuals, Counterfactuals)

    @property
    def prints(self) -> dict[str, str]:
        """What the rows are made of."""
        config = self.config
        known = "" if self.known is None else repr(sorted(self.known.attributes["cfx_fingerprint"].items()))
        return {
            "classifier": network_print(config.classifier, self.classifier), "images": source_print(self.source),
            "reference": source_print(self.reference), "counterfactuals": known, "settings": repr(self.method),
            "asked": f"{config.target} {config.output} {config.baseline}",
        }  # fmt: skip

    def maps(self, cohort: Cohort, rows: list[int]) -> Attributions:
        """The maps of some rows."""
        config = self.config
        baseline: Any = config.baseline if self.known is None else self._counterfactuals(rows)
        return attribute(
            self.classifier, cohort, config.target, method=self.method, baseline=baseline, output=config.output,
            reference=self.reference, seed=config.seed, batch_size=config.batch_size, row=rows,
            device=self.accelerator.device,
        )  # fmt: skip

    def _counterfactuals(self, rows: list[int]) -> Counterfactuals:
        assert self.known is not None
        if absent := sorted(set(rows) - set(self.known.rows)):
            raise InputError(f"counterfactuals: expected an atlas with a row for every image, got none of {absent[:4]}")
        return self.known.read(rows)

    def filled(self) -> Atlas[Attributions]:
        """The atlas with all rows."""
        filling = Filling(
            self.folder, self.config, self.source, lambda: self.maps(self.source[[0]], [0])[:0], self.maps, self.prints,
            self.words, self.accelerator,
        )  # fmt: skip
        return filling.filled(Attributions)


def summarise(found: Attributions) -> dict[str, Any]:
    """The figures of a run by name."""
    error = found.completeness_error
    known = error[~error.isnan()].double()
    worst = {"median": known.median(), "max": known.max()} if len(known) else {}
    return {
        "n": len(found), **{f"maps_{c.name.lower()}": int((found.verdict == int(c)).sum()) for c in Completeness},
        **{f"completeness_error_{name}": float(value) for name, value in worst.items()},
        "method": found.method, "baseline": found.baseline, "output": found.output,
        "nfe_classifier": float(found.nfe_classifier.double().mean()),
        "nfe_classifier_backward": float(found.nfe_classifier_backward.double().mean()),
        "seconds_per_image": float(found.seconds.double().mean()),
    }  # fmt: skip


CONFIG = AttributeConfig


def command(config: AttributeConfig, words: str) -> str:
    """Run, and say what came out."""
    text = "\n".join(lines(SHOWN, attribute_run(config, words)))
    return f"{text}\n\nwrote {config.folder}/report.html, atlas.zarr, summary.json, config.yaml"
