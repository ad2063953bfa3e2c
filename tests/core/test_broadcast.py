"""Numbers beside images."""

import pytest
import torch

from cfx.core.broadcast import each, rms, unit
from cfx.core.random import normal


@pytest.mark.parametrize("space", [(4, 5), (3, 4, 5)])
def test_each_row_has_its_own_number_or_numbers(space: tuple[int, ...]) -> None:
    x = normal((2, *space), seed=1, row=torch.arange(3), stream=0)
    w, centre = torch.tensor([2.0, -1.0, 0.0]), torch.arange(6.0).view(3, 2)
    assert torch.equal(each(w, x) * x, torch.stack([2 * x[0], -x[1], 0 * x[2]]))
    moved = x - each(centre, x)
    assert torch.equal(moved[2, 1], x[2, 1] - 5)
    assert torch.equal(each(torch.stack([w, w], 1)[:, 0], x), each(w, x))  # also of a column, which has gaps in memory
    assert torch.equal(each(w > 0, x)[0].expand_as(x[0]), x[0].isfinite())


def test_root_mean_square_and_rows_of_size_one() -> None:
    x = torch.tensor([[[3.0, -4.0]], [[0.0, 0.0]], [[1e-30, 0.0]]])
    assert rms(x).tolist() == pytest.approx([12.5**0.5, 0, 0])
    assert rms(unit(x)).tolist() == pytest.approx([1, 0, 0])
    y = normal((2, 6, 6), seed=2, row=torch.arange(4), stream=0)
    torch.testing.assert_close(unit(y), unit(each(torch.tensor([1e-6, 1.0, 5.0, 1e6]), y) * y))
