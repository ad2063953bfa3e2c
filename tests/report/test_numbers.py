"""Numbers for people: short, and never more certain than they are."""

import pytest

from cfx.report.numbers import count, number, percent, probability, span


def test_numbers_have_few_digits() -> None:
    found = [number(v) for v in (None, float("nan"), float("inf"), 0.12345, 12345.6, 3.2e-7)]
    assert found == ["-", "-", "-", "0.123", "12346", "3.2e-07"]


def test_probabilities_round_to_no_certainty() -> None:
    assert [probability(p) for p in (0.0, 0.001, 0.5, 0.9999, 1.0)] == ["0.00", "<0.01", "0.50", ">0.99", "1.00"]


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.0, "0 %"), (0.0004, "<0.1 %"), (0.0005, "0.1 %"), (0.031, "3.1 %"), (0.0994, "9.9 %"), (0.0996, "10 %"),
        (0.5, "50 %"), (0.9166, "92 %"), (0.9894, "99 %"), (0.9896, "99.0 %"), (0.9994, "99.9 %"),
        (0.99951, ">99.9 %"), (1.0, "100 %"), (float("nan"), "-"),
    ],
)  # fmt: skip
def test_percent_is_neither_nothing_nor_all_unless_it_is(share: float, said: str) -> None:
    assert percent(share) == said


def test_spans_and_counts() -> None:
    assert span(0.031, 1.0) == "3.1 to 100 %"
    assert [count(n, "row") for n in (0, 1, 20000)] == ["0 rows", "1 row", "20,000 rows"]
