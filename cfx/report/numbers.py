"""Numbers for people: few digits, and no certainty that a number does not have."""

import math

NONE = "-"
"""What stands where there is no number."""


def number(value: float | None, digits: int = 3) -> str:
    """A number with a few significant digits, `-` for None and what is not finite."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.{digits}g}" if abs(value) < 1e4 else f"{value:.0f}"


def probability(value: float) -> str:
    """A probability with two decimals that never rounds to a certainty it does not have."""
    if not math.isfinite(value):
        return NONE
    if 0 < value < 0.005 or 0.995 < value < 1:
        return "<0.01" if value < 0.5 else ">0.99"
    return f"{value:.2f}"


def percent(share: float) -> str:
    """A share in percent: one decimal near 0 and 1, and neither 0 nor 100 unless it is."""
    if not math.isfinite(share):
        return NONE
    if 0 < share < 0.0005 or 0.9995 <= share < 1:
        return "<0.1 %" if share < 0.5 else ">99.9 %"
    near = 0 < share < 0.0995 or 0.9895 <= share < 1
    return f"{100 * share:.{1 if near else 0}f} %"


def span(low: float, high: float) -> str:
    """An interval of shares, in percent."""
    ends = percent(low), percent(high)
    return f"{ends[0].removesuffix(' %')} to {ends[1]}"


def count(n: int, noun: str) -> str:
    """A number with its noun, thousands apart: `1 row`, `20,000 rows`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
