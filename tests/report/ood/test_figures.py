"""Figures of the page: drawn for what there is, and colours with common ends."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from cfx.report.ood.figures import against, coloured, limits, scale


def opened(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_histograms_are_drawn_also_of_equal_scores_and_without_a_threshold():
    wide = opened(against(torch.rand(30), torch.rand(9) * 5, 0.9, 3.0))
    assert wide.shape[1] > wide.shape[0]
    assert opened(against(torch.ones(4), torch.ones(2), None, 1.0)).std() > 0


def test_maps_share_their_colours():
    maps = torch.zeros(2, 1, 4, 4)
    maps[1, 0, 0, 0] = 5.0
    low, high = limits(maps)
    assert (low, round(high, 6)) == (0.0, np.float32(np.quantile(maps.numpy(), 0.998)).round(6))
    dark, bright = (opened(coloured(m, (0, 0), (low, high))) for m in maps)
    assert dark.max() < 10
    assert bright[0, 0].sum() > 500
    assert opened(coloured(torch.full((1, 3, 3), torch.nan), (0, 0), (0.0, 1.0))).shape == (3, 3, 3)


def test_the_scale_runs_from_dark_to_bright():
    found = opened(scale()).astype(int).sum(-1)[0]
    assert found[0] < 30 < 600 < found[-1]
