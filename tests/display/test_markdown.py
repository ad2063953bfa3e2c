"""Tables in Markdown: a line a row, the first column to the left."""

from cfx.display.markdown import grid


def test_a_table_has_a_head_a_rule_and_its_rows():
    assert grid(["a", "b"], [["x", "1"], ["y", "2"]]).splitlines() == [
        "| a | b |", "| --- | ---: |", "| x | 1 |", "| y | 2 |",
    ]  # fmt: skip
    assert grid(["a"], []) == "| a |\n| --- |"
