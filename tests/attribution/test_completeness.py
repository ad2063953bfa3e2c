"""How far a sum is from what it divides up, and what is said of it."""

import torch

from cfx.attribution.completeness import error, scale_of, verdicts
from cfx.attribution.method import Found


def test_errors_are_relative_to_the_change_or_to_a_thousandth_of_the_outputs():
    at_x, at_b = torch.tensor([3.0, 1000.0]), torch.tensor([1.0, 1000.0])
    assert scale_of(at_x - at_b, at_x, at_b).tolist() == [2.0, 2.0]
    assert error(torch.tensor([1.0, 1.0]), at_x - at_b, at_x, at_b).tolist() == [0.5, 0.5]


def test_verdicts_name_what_is_missing():
    wrong = torch.tensor([0.0, 1.0, 0.0])
    usable = torch.tensor([True, True, False])
    found = Found(torch.zeros(3, 1, 2, 2))
    code, said = verdicts(found, wrong, "change", usable)
    assert code.tolist() == [0, 1, 3]
    assert said == ("", "", "an output or a gradient that is not finite")
    foreign = Found(found.map, foreign=("softmax", "group_norm"))
    assert verdicts(foreign, wrong, "value", usable)[1][1] == "no rule for group_norm, softmax"
    assert verdicts(found, wrong * torch.nan, "", usable)[0].tolist() == [2, 2, 3]
    assert verdicts(Found(found.map, refused="why"), wrong, "", usable)[1] == ("why",) * 3
