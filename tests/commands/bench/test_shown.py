"""The picture has a line a case and a column a method, and never more lines than it says."""

import io

import torch
from matplotlib.image import imread

from cfx.commands.bench.shown import MOST, Example, draw
from cfx.commands.bench.stock import Case
from tests.counterfactual.toys import explain_toys


def example(name="case", truth=None):
    result = explain_toys(3)
    nowhere = torch.zeros_like(result.edited)
    case = Case(name, [], result.cohort, result.cohort, result.x_cf, result.target, nowhere, truth)
    return Example(case, {"minimal": result})


def test_a_case_is_drawn_with_and_without_what_can_be_read():
    plain = imread(io.BytesIO(draw([example()])))
    truth = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    truth[:, :, 2:5, 2:5] = True
    outlined = imread(io.BytesIO(draw([example(truth=truth)])))
    assert plain.shape == outlined.shape
    assert (plain != outlined).any()


def test_lines_are_left_out_where_there_are_too_many():
    height = {n: imread(io.BytesIO(draw([example()] * n))).shape[0] for n in (1, MOST, 2 * MOST)}
    assert height[1] < height[MOST] == height[2 * MOST]


def test_nothing_to_show_is_a_picture_too():
    assert imread(io.BytesIO(draw([]))).size > 0
