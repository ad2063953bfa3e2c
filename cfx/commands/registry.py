"""The verbs of the command line by name: what each is for, and the module that does it, imported when it is asked for.

A module of a verb has `CONFIG`, the class of its configuration, and `command(config, words) -> str`, which runs it and
returns what the main process prints; `words` is the command line that was given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from cfx.runtime.config import RunConfig

Command = Callable[[Any, str], str]


@dataclass(frozen=True)
class Verb:
    """One verb.

    Attributes:
        module: Where it is.
        help: One sentence.
        config: The shipped configuration file it runs with; None where one must be named.
    """

    module: str
    help: str
    config: str | None = None

    def load(self) -> tuple[type[RunConfig], Command]:
        """The class of its configuration, and what runs it."""
        found = import_module(self.module)
        return found.CONFIG, found.command


VERBS: dict[str, Verb] = {
    "explain": Verb(
        "cfx.commands.explain", "Explain a cohort: atlas, metrics, report.html, summary.json into the run's folder."
    ),
    "audit": Verb(
        "cfx.commands.audit",
        "Right for the right reason? Plan, scores, report.html, summary.json into the run's folder.",
    ),
    "ood": Verb(
        "cfx.commands.ood",
        "Are these images in distribution? Scores, maps, report.html, summary.json into the run's folder.",
    ),
    "segment": Verb(
        "cfx.commands.segment",
        "How sure is the outline? Masks as experts would draw them, report.html, summary.json into the run's folder.",
    ),
    "attribute": Verb(
        "cfx.commands.attribute",
        "Where does the classifier look? Maps, report.html, summary.json into the run's folder.",
    ),
    "import": Verb("cfx.commands.imports", "Write a network of MONAI or diffusers as a checkpoint folder of cfx."),
    "demo": Verb(
        "cfx.commands.explain",
        "Explain 48 unseen simulated brains with the shipped checkpoints.",
        config="brain64-demo.yaml",
    ),
}
"""What `cfx NAME CONFIG` does."""

BENCHES: dict[str, Verb] = {
    "counterfactual": Verb(
        "cfx.commands.bench.counterfactual",
        "Compare methods of explanation; writes results.json, table.md, figure.png (--out DIR: where).",
    ),
    "tuning": Verb(
        "cfx.commands.bench.tuning",
        "Tune methods on other images with the same budget and one rule; writes tuning.json for the comparison.",
    ),
    "planted": Verb(
        "cfx.commands.bench.planted", "Explain classifiers of planted factors: does the edit show the factor?"
    ),
    "faithful": Verb(
        "cfx.commands.bench.faithful",
        "Explain classifiers whose reason is known: who shows it, and who says when there is none?",
    ),
    "ood": Verb(
        "cfx.commands.bench.ood",
        "Compare detectors on what to tolerate and what to find: the ladder, or your own sets of images.",
    ),
    "segmentation": Verb(
        "cfx.commands.bench.segmentation",
        "Compare networks that draw masks with what several readers drew, or with the known distribution of it.",
    ),
    "attribution": Verb(
        "cfx.commands.bench.attribution",
        "Compare maps of where a classifier looks, with and without counterfactuals, against what is true.",
    ),
    "calibration": Verb(
        "cfx.commands.bench.calibration",
        "Are probabilities honest before and after a temperature, and do conformal sets keep their level?",
    ),
    "reliance": Verb("cfx.commands.bench.reliance", "Check the reliance test itself: type I error and power."),
    "remedies": Verb(
        "cfx.commands.bench.remedies", "Train classifiers with every remedy against a planted confounder."
    ),
}
"""What `cfx bench NAME CONFIG` does."""
