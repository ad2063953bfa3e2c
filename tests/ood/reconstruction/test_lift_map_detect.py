"""Inpainting: what is shown is never an error, what is hidden is drawn as the generator knows it."""

from itertools import pairwise

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.solvers import ancestral_mean, ancestral_std
from cfx.ood import build_detector
from cfx.ood.reconstruction.lift_map_detect import board
from tests.ood.detectors import SCHEDULE, GaussianGenerator, images
from tests.ood.reconstruction.known import ask, learn


@pytest.mark.parametrize("space", [(8, 12), (10, 10), (4, 6, 8)])
def test_neighbouring_blocks_differ_and_two_turns_cover_the_image(space):
    shown = board(space, 2, 0)
    assert torch.equal(board(space, 2, 1), ~shown)
    assert torch.equal(board(space, 2, 2), shown)
    for axis, n in enumerate(space):
        assert torch.equal(shown.narrow(axis, 0, n // 2), ~shown.narrow(axis, n // 2, n // 2))


def test_what_is_shown_comes_back_as_it_is():
    x = images(3)
    found = build_detector("lift-map-detect", repeats=1, steps=6, blocks=4).fit(learn())(ask(x))
    shown = board((8, 8), 4, 0)
    assert float(found.map[:, 0, shown].abs().max()) == 0
    assert float(found.map[:, 0, ~shown].mean()) > 0.01
    torch.testing.assert_close(found.score, found.map.flatten(1).mean(1))


def test_hidden_independent_pixels_are_drawn_anew():
    # for a new y of mean 0 and variance v the mean square of x - y is x^2 + v; DDPM in few steps makes v a little small
    x, grid, v = images(40, seed=4), SCHEDULE.times(40, start=SCHEDULE.T), 1.0
    for t, s in pairwise(grid):
        unit = torch.ones(1, 1, 1, 1)
        factor = ancestral_mean(SCHEDULE, GaussianGenerator()(unit, t).mean, unit, t, s)
        v = float(factor) ** 2 * v + ancestral_std(SCHEDULE, t, s) ** 2
    found = build_detector("lift-map-detect", repeats=8, steps=40, blocks=4).fit(learn())(ask(x))
    assert 0.02 < v < 0.04
    assert float(found.map.mean()) == pytest.approx(float(x.square().mean()) + v, rel=0.1)
    assert float(found.score.mean()) == pytest.approx(float(found.map.mean()) / 2, rel=0.15)


def test_one_wild_repetition_does_not_move_the_median():
    settings = {"repeats": 3, "steps": 6, "blocks": 4}
    fitted, x = build_detector("lift-map-detect", **settings).fit(learn()), images(5)
    each = torch.stack([
        (fitted._painted(ask(x), x, [k])[0] - x).square().flatten(1).mean(1) for k in range(3)
    ])  # fmt: skip
    torch.testing.assert_close(fitted(ask(x)).score, each.sort(0).values[1])


def test_more_blocks_than_voxels_are_refused():
    with pytest.raises(InputError, match="blocks: expected at most 4, the voxels of an axis, got 8"):
        build_detector("lift-map-detect").fit(learn(space=(4, 16)))
