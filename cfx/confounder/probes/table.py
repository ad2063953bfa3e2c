"""The table of shape comparisons in its usual layout: group A against group B, told from their masks alone.

TNR is the share of A, TPR that of B that is recognised on held-out subjects, BA their mean. The tick says that BA beats
chance: it is above 0.5, with a permutation p of at most alpha.
"""

from collections.abc import Mapping

from cfx.core.statistics import Estimate

HEAD = ("group A", "group B", "TNR", "TPR", "BA", "beats chance")
TICK = "✓"


def comparison(a: str, b: str, scores: Mapping[str, Estimate], p_value: float, *, alpha: float = 0.05) -> list[str]:
    """One line of the table.

    Args:
        a: The group that counts as negative.
        b: The group that counts as positive.
        scores: With `tnr`, `tpr` and `ba`, as in `probe.ProbeResult`.
        p_value: Its permutation p.
        alpha: Level of the tick.
    """
    beats = scores["ba"].value > 0.5 and p_value <= alpha
    return [a, b, *(f"{scores[k].value:.2f}" for k in ("tnr", "tpr", "ba")), TICK if beats else ""]
