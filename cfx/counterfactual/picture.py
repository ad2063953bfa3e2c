"""A result as a notebook shows it: input, counterfactual and difference of its first rows, in one small table.

Where it is known which part of the difference the classifier reads, that part is shown by itself too: as pixels, since
notebooks that were not run here show pictures and drop what is drawn over them.
"""

from collections.abc import Sequence
from html import escape

from jaxtyping import Bool, Float
from torch import Tensor

from cfx.display.images import Pixels, array, centre, data_uri, difference, picture, symmetric_limit

SHOWN = 4
"""Rows that are shown."""
_CELL = '<td><img src="{}" alt="{}" style="height:128px;image-rendering:pixelated"></td>'


def html(
    title: str,
    x: Float[Tensor, "n c *space"],
    x_cf: Float[Tensor, "n c *space"],
    names: Sequence[str],
    read: Bool[Tensor, "n 1 *space"] | None = None,
) -> str:
    """The table; the colours of all differences have one scale, red where the counterfactual is brighter.

    Args:
        title: What stands above it.
        x: Inputs in [-1, 1], 2D or 3D, any number.
        x_cf: Counterfactuals.
        names: What stands beside each row.
        read: The part of each difference that the classifier reads; None where nobody asked.
    """
    before, after = array(x[:SHOWN]), array(x_cf[:SHOWN])
    change = after - before
    parts = {"difference": change} | ({} if read is None else {"read": change * array(read[:SHOWN])})
    limit = symmetric_limit([change]) if len(change) else 1.0
    rows = []
    for i, (one, other, name) in enumerate(zip(before, after, names, strict=False)):
        at = _cut([part[i] for part in parts.values()])
        shown = {"input": picture(one, at), "counterfactual": picture(other, at)}
        shown |= {kind: difference(part[i], at, limit) for kind, part in parts.items()}
        cells = "".join(_CELL.format(data_uri(colours), kind) for kind, colours in shown.items())
        rows.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    heads = ["", "input", "counterfactual", f"difference (to {limit:.2g})", "read by the classifier"]
    head = "".join(f"<th>{text}</th>" for text in heads[: 3 + len(parts)])
    return f"<p>{escape(title)}</p><table><tr>{head}</tr>{''.join(rows)}</table>"


def _cut(parts: Sequence[Pixels]) -> tuple[int, ...]:
    """Where volumes are cut: the centre of the last of these differences `(c, *space)` that holds anything."""
    return centre(next((part for part in reversed(parts) if part.any()), parts[0]).mean(0))
