"""Tables in Markdown."""

from collections.abc import Sequence


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table: the first column to the left, numbers to the right.

    Args:
        head: Headings.
        body: Its lines, a text a cell.
    """
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
