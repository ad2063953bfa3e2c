"""Near misses are mended by the first version of the edit that convinces, in the order of the page; others are left."""

import pytest
import torch
from torch import nan

from cfx.counterfactual.touch_up import NUDGES, SCALES, touch_up


class Case:
    """Four rows, the first two of which miss by little; images have one size (that of the edit) a row."""

    def __init__(self, good):
        self.good, self.asked, self.slopes = good, [], []
        self.rows = torch.tensor([7, 3, 5, 1])
        self.excess = torch.tensor([-0.1, -0.3, -0.4, 0.2])
        self.x = torch.full((4, 1, 1, 2), 1.0)

    def judge(self, rows, images):
        """By `good(size along the edit, size across it)`."""
        change = (images - 1).flatten(1)
        self.asked += [(r, round(a, 3), round(b, 3)) for r, (a, b) in zip(rows.tolist(), change.tolist(), strict=True)]
        return torch.tensor([0.5 if self.good(a, b) else -0.2 for a, b in change.tolist()])

    def gradient(self, rows, images):
        """Across the edit."""
        self.slopes += rows.tolist()
        return torch.tensor([0.0, 9.0]).expand_as(images)

    def run(self):
        edited = self.x + torch.tensor([1.0, 0.0])
        kept = edited.clone(), self.excess.clone()
        out = touch_up(
            self.rows, self.x, edited, self.excess, judge=self.judge, gradient=self.gradient, tolerance=0.3
        )  # fmt: skip
        assert torch.equal(edited, kept[0])
        assert torch.equal(self.excess.nan_to_num(9), kept[1].nan_to_num(9))
        return out


@pytest.mark.parametrize(
    ("good", "taken", "tries"), [((0.93, 0.97), 0.95, 1), ((0.7, 0.92), 0.9, 3), ((1.15, 2), 1.2, 6)]
)
def test_the_first_scale_that_convinces_is_taken(good, taken, tries):
    case = Case(lambda a, b: good[0] < a < good[1])
    edited, excess = case.run()
    torch.testing.assert_close(edited[:2, 0, 0, 0], torch.full((2,), 1 + taken))
    assert excess.tolist() == pytest.approx([0.5, 0.5, -0.4, 0.2])
    assert torch.equal(edited[2:], case.x[2:] + torch.tensor([1.0, 0.0]))
    assert [a for r, a, b in case.asked if r == 7] == list(SCALES[:tries])
    assert {r for r, *_ in case.asked} == {7, 3}
    assert case.slopes == []


@pytest.mark.parametrize(("least", "size"), [(0.01, 0.05), (0.07, 0.1), (0.15, 0.2)])
def test_what_no_scale_mends_is_nudged_by_the_least_that_is_enough(least, size):
    case = Case(lambda a, b: b > least)
    edited, excess = case.run()
    # e = (1, 0) has |e| = sqrt 1/2, and g / |g| = (0, sqrt 2)
    expected = torch.tensor([2.0, 1 + size])
    torch.testing.assert_close(edited[:2, 0, 0], expected.expand(2, 2))
    assert excess.tolist() == pytest.approx([0.5, 0.5, -0.4, 0.2])
    assert case.slopes == [7, 3]  # one gradient each
    assert len(case.asked) == 2 * (len(SCALES) + NUDGES.index(size) + 1)


def test_what_nothing_mends_stays_as_it_was():
    case = Case(lambda a, b: False)
    edited, excess = case.run()
    assert torch.equal(edited, case.x + torch.tensor([1.0, 0.0]))
    assert torch.equal(excess, case.excess)
    assert len(case.asked) == 2 * (len(SCALES) + len(NUDGES))


def test_without_near_misses_nothing_is_asked():
    case = Case(lambda a, b: True)
    case.excess = torch.tensor([0.0, 4.0, -0.31, nan])
    _, excess = case.run()
    assert excess[:3].tolist() == pytest.approx([0.0, 4.0, -0.31])
    assert case.asked == case.slopes == []
