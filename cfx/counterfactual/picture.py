"""A result as a notebook shows it: input, counterfactual and difference of its first rows, in one small table."""

from collections.abc import Sequence
from html import escape

from jaxtyping import Float
from torch import Tensor

from cfx.display.images import array, centre, data_uri, difference, picture, symmetric_limit

SHOWN = 4
"""Rows that are shown."""
_CELL = '<td><img src="{}" alt="{}" style="height:128px;image-rendering:pixelated"></td>'


def html(title: str, x: Float[Tensor, "n c *space"], x_cf: Float[Tensor, "n c *space"], names: Sequence[str]) -> str:
    """The table; the colours of all differences have one scale, red where the counterfactual is brighter.

    Args:
        title: What stands above it.
        x: Inputs in [-1, 1], 2D or 3D, any number.
        x_cf: Counterfactuals.
        names: What stands beside each row.
    """
    before, after = array(x[:SHOWN]), array(x_cf[:SHOWN])
    change = after - before
    limit = symmetric_limit([change]) if len(change) else 1.0
    rows = []
    for one, other, moved, name in zip(before, after, change, names, strict=False):
        at = centre(moved.mean(0))
        shown = {"input": picture(one, at), "counterfactual": picture(other, at)}
        shown["difference"] = difference(moved, at, limit)
        cells = "".join(_CELL.format(data_uri(colours), kind) for kind, colours in shown.items())
        rows.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    head = f"<tr><th></th><th>input</th><th>counterfactual</th><th>difference (to {limit:.2g})</th></tr>"
    return f"<p>{escape(title)}</p><table>{head}{''.join(rows)}</table>"
