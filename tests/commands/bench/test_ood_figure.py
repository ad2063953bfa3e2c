"""Figures of a bench of detectors: drawn whatever shifts and maps there are."""

import io

import numpy as np
import torch
from PIL import Image

from cfx.commands.bench.ood_figure import Shown, draw, shifts_of
from cfx.core.cohort import Cohort
from tests.commands.bench.test_detections import scored


def row(method: str, **shifts: str) -> dict:
    found = {"method": method, "level": 0.05, "nfe_unet_forward": 2.0, "seconds_per_image": 0.1, "comparisons": {}}
    found |= {"auroc_near": 0.9, "auroc_near_low": 0.8, "auroc_near_high": 1.0}
    for name, kind in shifts.items():
        part = {"kind": kind, "auroc": 0.8, "auroc_low": 0.7, "auroc_high": 0.9, "out": 0.1, "n": 9, "development": 0}
        found |= {f"shift.{name}.{key}": value for key, value in part.items()}
    return found


def size(png: bytes) -> tuple[int, int]:
    image = Image.open(io.BytesIO(png))
    assert np.array(image.convert("L")).std() > 5
    return image.size


def test_the_ladder_is_drawn_of_any_kinds():
    few = size(draw([row("ours", a="near")], dpi=40))
    many = size(draw([row(m, **{f"s{k}": "far" for k in range(20)}, t="tolerated") for m in ("x", "y")], dpi=40))
    assert many[1] > few[1]
    assert shifts_of([row("ours", a="near", b="far", c="near")], "near") == ["a", "c"]


def test_a_method_that_failed_is_left_out():
    assert size(draw([row("ours", a="near"), {"method": "none", "n": 0, "error": "no"}], dpi=40))


def test_maps_stand_beside_their_images():
    shown = Shown()
    assert shown.picture(["ours"]) is None
    lesion = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    lesion[1, 0, 2:4, 2:4] = True
    cohort = Cohort(torch.zeros(3, 1, 8, 8), lesion=lesion)
    for method in ("ours", "other"):
        shown.add("spot", method, cohort, scored(torch.arange(3.0), maps=torch.rand(3, 1, 8, 8)))
    shown.add("spot", "mapless", cohort, scored(torch.arange(3.0)))
    one, two = (size(shown.picture(methods, dpi=40)) for methods in (["ours"], ["ours", "other", "mapless"]))
    assert two[0] > one[0]
    assert torch.equal(shown.images["spot"][1], lesion[1].float())
