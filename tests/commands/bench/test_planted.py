"""What counts as showing the planted factor, and a bench that finds out who does."""

import json

import torch

from cfx.commands.bench.planted import PlantedBench, cosine, inside_top, planted_cohort, run_planted
from cfx.core.denoiser import Denoiser
from cfx.core.schedule import Schedule
from cfx.models import build, save


def test_an_object_is_revealed_if_it_lies_inside_the_top_of_the_map():
    region = torch.zeros(3, 1, 20, 20, dtype=torch.bool)
    region[:2, :, :4, :4] = True
    edit = torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(0)) * 0.1
    edit[0, :, :4, :4] = -0.5
    found = inside_top(edit, region)
    assert found[:2].tolist() == [1.0, 0.0]
    assert found[2].isnan()
    assert inside_top(torch.zeros_like(edit), region)[:2].tolist() == [0.0, 0.0]


def test_cosine_of_maps():
    a = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])[:, None, None]
    b = torch.tensor([[0.0, 2.0], [-1.0, -1.0], [1.0, 0.0]])[:, None, None]
    torch.testing.assert_close(cosine(a, b), torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64))


def test_the_two_truths_change_one_factor_each():
    images, disease = planted_cohort("tag", 6, 3)
    corner, middle = (..., slice(0, 10), slice(0, 10)), (..., slice(20, 44), slice(20, 44))
    assert (images.x_true[corner] != images.x[corner]).flatten(1).any(1).all()
    assert torch.equal(images.x_true[middle], images.x[middle])
    assert torch.equal(disease[corner], images.x[corner])
    assert (disease[middle] != images.x[middle]).flatten(1).any(1).all()


def test_the_bench_writes_one_row_a_factor_and_method(tmp_path, root):
    keys = {"spatial_dims": 2, "in_channels": 1, "channels": [8], "attention": [False], "features": 2, "classes": 2}
    schedule = Schedule.from_diffusers({"prediction_type": "v_prediction"})
    denoiser = Denoiser(build("patch-unet", **keys), schedule, classes=2, shape=(1, 64, 64))
    save(tmp_path / "gen", denoiser, name="patch-unet", config=keys)
    config = PlantedBench(
        name="toy", out=str(tmp_path / "out"), n=4, generator=str(tmp_path / "gen"),
        classifiers={"tag": str(root / "checkpoints/brain64-tag-classifier")}, methods=("gradient-attack",),
    )  # fmt: skip
    rows = run_planted(config)
    assert [(r["factor"], r["method"]) for r in rows] == [("tag", "gradient-attack")]
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == rows
    assert "revealed" in (tmp_path / "out" / "table.md").read_text()
