"""The figure of maps: a panel a method, an image a line."""

import io

import pytest
from PIL import Image

from cfx.commands.bench.attribution_figure import draw
from cfx.core.cohort import Cohort
from tests.attribution.networks import images


@pytest.mark.parametrize("space", [(8, 8), (6, 6, 6)])
def test_more_methods_and_images_make_a_larger_figure(space):
    x = images(3, space)
    maps = {str(k): images(2, space, seed=k) for k in range(3)}
    few, many = (Image.open(io.BytesIO(draw(Cohort(x), m, dpi=30))).size for m in (
        maps, maps | {f"more {k}": x[:2] for k in range(8)},
    ))  # fmt: skip
    assert many[0] == few[0]
    assert many[1] > 1.8 * few[1]
