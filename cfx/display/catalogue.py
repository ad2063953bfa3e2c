"""The catalogue of metrics: what a figure is called, what it means, which way is better, and how it is written.

The room that computes a metric registers it, once; console, tables, figures, pages and docs read it here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cfx.core.errors import InputError

Better = Literal["higher", "lower", ""]
_CATALOGUE: dict[str, "Metric"] = {}


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Its key in `summary.json` and `results.json`.
        heading: What a column or an axis of it is called.
        meaning: One sentence for who has not read the docs.
        better: Which way is better; empty where neither is.
        form: How its numbers are written, as `format` takes it.
    """

    name: str
    heading: str
    meaning: str
    better: Better = ""
    form: str = ".3f"

    @property
    def axis(self) -> str:
        """The heading with the direction that is better."""
        return f"{self.heading} ({self.better} is better)" if self.better else self.heading

    def said(self, value: float | None) -> str:
        """A number of it, `-` where there is none."""
        return "-" if value is None else format(value, self.form)

    def spread(self, values: Mapping[str, float | None]) -> str:
        """Its value among flat metrics, with the interval where there is one; `-` where it is not among them."""
        low, high = values.get(f"{self.name}_low"), values.get(f"{self.name}_high")
        text = self.said(values.get(self.name))
        return text if low is None or high is None else f"{text} [{self.said(low)}, {self.said(high)}]"


def register(*metrics: Metric) -> None:
    """Put metrics into the catalogue.

    Raises:
        InputError: another metric of that name is there.
    """
    for metric in metrics:
        if _CATALOGUE.setdefault(metric.name, metric) != metric:
            raise InputError(f"metric {metric.name}: expected one meaning, got another than the catalogue's")


def known(name: str) -> Metric | None:
    """The metric called `name`, or None."""
    return _CATALOGUE.get(name)


def metric(name: str) -> Metric:
    """The metric called `name`; one that nobody registered is called what its key says."""
    return _CATALOGUE.get(name) or Metric(name, name.replace("_", " "), "", "", ".4g")


def meaning(name: str, conditions: Sequence[str] = ()) -> str:
    """One line on a key, also on `CONDITION_name` or `name_CONDITION`; empty if nobody registered it.

    Args:
        name: The key.
        conditions: Words that a run puts before or after a key to say under which condition it holds.
    """
    for word in conditions:
        bare = name.removeprefix(f"{word}_").removesuffix(f"_{word}")
        if bare != name and (found := known(bare)) is not None:
            return f"{found.meaning} At depth {word}."
    return metric(name).meaning
