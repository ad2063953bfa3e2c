"""What the classifier reads of the changes, in words: of one row, and of all of them.

Of a change that the generator made the classifier may read a part only. How large that part is, what it does by itself
and what the rest does by itself are measured (`cfx.counterfactual.reading`); here they are said.
"""

import math
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from cfx.counterfactual.reading import Reading
from cfx.counterfactual.result import Counterfactuals
from cfx.report.numbers import NONE, percent

ORDER: Final = (Reading.CARRIED, Reading.REDUNDANT, Reading.WHOLE)
"""Order in which a page counts and explains them."""
_REST: Final[dict[str, str]] = {
    Reading.CARRIED: "the generator added it",
    Reading.REDUNDANT: "it moves the classifier as well",
    Reading.WHOLE: "most of what is shown is read",
}


@dataclass(frozen=True)
class Parts:
    """What is known of the parts of a change, formatted; `word` is empty where nothing is.

    Attributes:
        word: How it is read, as `Counterfactuals.reading`.
        share: The part that is read, as a share of the change.
        alone: Share of the change of margin that this part brings by itself.
        rest: Share of it that the rest brings by itself.
        error: How far the attribution behind it is from complete.
    """

    word: str = ""
    share: str = ""
    alone: str = ""
    rest: str = ""
    error: str = ""

    @property
    def sentence(self) -> str:
        """The three shares in words."""
        return (
            f"The classifier reads {self.share} of the change. That part alone brings {self.alone} of its change of "
            f"mind, the rest alone {self.rest}: {_REST[self.word]}."
        )


def parts(result: Counterfactuals) -> list[Parts]:
    """What is known of the parts of every change."""
    columns = (result.read_share, result.read_alone, result.rest_alone, result.read_error)
    if any(column is None for column in columns):
        return [Parts()] * len(result)
    figures = zip(*(column.tolist() for column in columns if column is not None), strict=True)
    return [
        Parts(word, percent(share), _brought(alone), _brought(rest), percent(error)) if word else Parts()
        for word, (share, alone, rest, error) in zip(result.reading, figures, strict=True)
    ]


def _brought(value: float) -> str:
    """A share of the change of margin in percent; it may lie outside 0 and 100."""
    return f"{round(100 * value)} %" if math.isfinite(value) else NONE


def run_sentence(result: Counterfactuals) -> str:
    """How the changes of a result are read, in words; empty where none was measured."""
    share, words = result.read_share, result.reading
    n = sum(map(bool, words))
    if share is None or not n:
        return ""
    here = {word: [i for i, found in enumerate(words) if found == word] for word in ORDER}
    return " ".join(_counted(word, at, n, share) for word, at in here.items() if at)


def _counted(word: Reading, at: list[int], n: int, share: Tensor) -> str:
    """The sentence of the rows that are read in one way."""
    part = f"{percent(float(share[at].double().mean()))} of it{' on average' if len(at) > 1 else ''}"
    some = f"In {len(at):,} of {n:,} rows" if len(at) < n else f"In all {n:,} rows"
    rows = "In this row" if n == 1 else some
    return {
        Reading.CARRIED: f"{rows} the classifier reads only part of the change ({part}): the rest does nothing by "
        "itself, the generator carries it along.",
        Reading.REDUNDANT: f"{rows} a part of the change ({part}) is enough for the classifier, and the rest alone "
        "moves it as well.",
        Reading.WHOLE: f"{rows} the classifier reads most of the change ({part}).",
    }[word]
