"""What an edit has to reach: margins at either depth, those of real images, and one tolerance for rounding."""

import pytest
import torch
from torch import nn

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.models.goal import FALLBACK_MARGIN, Goal, goals, typical_margins
from cfx.models.judge import Judge
from cfx.models.wrappers import Near


def test_a_margin_is_reached_to_within_rounding_and_never_by_nan():
    margin = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0])
    found = torch.tensor([1.0, 1 - 5e-6, 1 - 2e-5, 3.0, torch.nan])
    assert Goal(margin).reached(found).tolist() == [True, True, False, True, False]


def test_the_goals_of_classes_give_that_of_rows():
    by_class = Goal(torch.tensor([1.0, 2.0, 3.0]), whole=True, two_sided=True)
    rows = by_class[torch.tensor([2, 0, 2, 1])]
    assert rows.margin.tolist() == [3, 1, 3, 2]
    assert (rows.whole, rows.two_sided) == (True, True)
    assert rows.to(torch.device("meta")).margin.device.type == "meta"


class FirstPixel(nn.Module):
    """The first pixel is the binary logit."""

    def forward(self, x):
        return x[:, 0, 0, 0]


def reference(pixels, y):
    x = torch.zeros(len(pixels), 1, 2, 2)
    x[:, 0, 0, 0] = torch.tensor(pixels)
    return Cohort(x, y=None if y is None else torch.tensor(y))


def test_typical_margins_are_lower_deciles_over_recognised_images():
    # class 0 recognised with margins 0.1, 0.4, 0.9; class 1 with 0.2, 0.3, 0.8; the last of each class is mistaken
    pixels = [-0.1, -0.9, -0.4, 0.7, 0.2, 0.8, 0.3, -0.6]
    margins = typical_margins(FirstPixel(), reference(pixels, [0, 0, 0, 0, 1, 1, 1, 1]))
    torch.testing.assert_close(margins, torch.tensor([0.16, 0.22]))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 0, 0], "reference: expected images of class 1 that the classifier recognises, got none"),
        ([1, 1, 0], "reference: expected images of class 0 that the classifier recognises, got none"),
        (None, "reference: expected a cohort with one class label an image, got none"),
    ],
)
def test_a_reference_without_some_class_is_refused(y, message):
    with pytest.raises(InputError, match=message):
        typical_margins(FirstPixel(), reference([-0.5, 0.2, 0.3], y))


def test_a_depth_decides_what_is_asked_for():
    judge, near = Judge(FirstPixel()), Judge(Near(FirstPixel(), 0.3, 0.1))
    cohort = reference([-0.1, -0.9, 0.2, 0.8], [0, 0, 1, 1])
    typical = goals(judge, 2, "typical", cohort)
    assert torch.equal(typical.margin, typical_margins(FirstPixel(), cohort))
    assert (typical.whole, typical.two_sided) == (True, False)
    alone = goals(judge, 2, "typical")
    assert pytest.approx(torch.logit(torch.tensor(0.95, dtype=torch.float64)).item(), abs=1e-3) == FALLBACK_MARGIN
    assert alone.margin.tolist() == pytest.approx([FALLBACK_MARGIN] * 2)
    least = goals(judge, 2, "boundary", cohort)
    assert ((least.margin > 0) & (least.margin < 0.01)).all()
    assert (least.whole, least.two_sided) == (False, False)
    value = goals(near, 3, "typical")
    assert value.margin.tolist() == [Near.TYPICAL] * 3
    assert (value.whole, value.two_sided) == (True, True)
    with pytest.raises(InputError, match="depth: expected 'typical' or 'boundary', got 'deep'"):
        goals(judge, 2, "deep")
    with pytest.raises(InputError, match="reference: expected none with Near"):
        goals(near, 3, "typical", cohort)
