"""Axes are called by the direction in which their index grows, as nibabel's orientation codes have it."""

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cfx.core.axes import PLAIN, RAS, axis_names, check_axes
from cfx.core.errors import InputError

CODES = {"R": "right", "A": "front", "S": "top", "L": "left", "P": "back", "I": "bottom"}


def affine(steps, dims=3):
    matrix = np.eye(4)
    matrix[:3, :dims] = np.asarray(steps)[:, :dims]
    return torch.from_numpy(matrix)[None]


@given(st.integers(0, 10**6))
def test_names_are_nibabels_codes_in_words(seed):
    rng = np.random.default_rng(seed)
    steps = Rotation.random(random_state=rng).as_matrix() * rng.uniform(0.3, 5, 3) * rng.choice([-1, 1], 3)
    found = affine(steps)
    assert axis_names(found, 3) == tuple(CODES[c] for c in nibabel.aff2axcodes(found[0].numpy()))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], ("back", "right")),
        ([[0, 1, 0], [0, 0, 1], [-1, 0, 0]], ("bottom", "right")),
        ([[0.1, 0, 1], [0.2, 2, 0], [-3, 0.3, 0]], ("bottom", "front")),
    ],
)
def test_a_slice_has_the_two_axes_it_has(columns, expected):
    assert axis_names(affine(columns), 2) == expected


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("fault", ["none", "empty", "zero", "nan", "mixed"])
def test_what_says_no_direction_has_plain_names(dims, fault):
    matrices = {
        "none": None,
        "empty": torch.zeros(0, 4, 4),
        "zero": torch.zeros(2, 4, 4),
        "nan": torch.full((1, 4, 4), torch.nan),
        "mixed": torch.stack([torch.eye(4), torch.diag(torch.tensor([-1.0, 1, 1, 1]))]),
    }
    assert axis_names(matrices[fault], dims) == PLAIN[dims]


def test_volumes_that_run_alike_have_their_names():
    assert axis_names(torch.eye(4).repeat(3, 1, 1) * torch.rand(3, 1, 1).add(0.1), 3) == RAS


@pytest.mark.parametrize("axes", [["a"], ["a", "a"], "ab", ["a", "b", "c"]])
def test_names_that_do_not_fit_are_refused(axes):
    with pytest.raises(InputError, match="axes: expected 2 different names"):
        check_axes(axes, 2)
