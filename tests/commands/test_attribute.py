"""A whole run of attribution: files, figures, and the same again when asked again."""

import json
from pathlib import Path

import pytest
import torch

from cfx.atlas import Atlas, write_atlas
from cfx.attribution import Attributions, attribute
from cfx.commands.attribute import SHOWN, AttributeConfig, attribute_run
from cfx.commands.filling import lines
from cfx.core.errors import InputError
from cfx.counterfactual.result import Counterfactuals
from cfx.data import load_cohort
from cfx.models import load
from tests.tiny import SIZE, checkpoint

DATA = {"kind": "brain", "n": 5, "seed": 3, "size": SIZE}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint(tmp_path_factory.mktemp("networks") / "classifier", "cnn", 1)


def config(out: Path, classifier: str, **changes) -> AttributeConfig:
    values = {"name": "maps", "out": str(out), "data": DATA, "classifier": classifier, "batch_size": 2}
    return AttributeConfig.model_validate(values | changes)


def test_a_run_leaves_maps_a_page_and_a_summary(tmp_path, classifier):
    asked = config(tmp_path, classifier, method="saliency", target="diseased")
    found = attribute_run(asked, "cfx attribute it.yaml")
    assert found == json.loads((tmp_path / "summary.json").read_text())
    assert (found["n"], found["maps_undefined"], found["method"]) == (5, 5, "saliency")
    atlas = Atlas(tmp_path / "atlas.zarr", Attributions)
    cohort = load_cohort(asked.data)
    own = attribute(load(classifier), cohort, 1, method="saliency")
    torch.testing.assert_close(atlas.read().map, own.map, rtol=1e-3, atol=1e-6)
    assert atlas.read().row.tolist() == list(range(5))
    page = (tmp_path / "report.html").read_text()
    assert "brain-3-4" in page
    assert "no sum is promised" in page
    assert "<script" not in page
    before = (tmp_path / "atlas.zarr").stat().st_mtime_ns
    assert attribute_run(asked)["seconds_per_image"] == found["seconds_per_image"]  # nothing is done twice
    assert (tmp_path / "atlas.zarr").stat().st_mtime_ns >= before
    assert any("undefined maps" in line for line in lines(SHOWN, found))


def test_counterfactuals_of_a_run_are_the_baseline(tmp_path, classifier):
    cohort = load_cohort(config(tmp_path, classifier).data)
    n, flat = len(cohort), torch.zeros(len(cohort))
    one, probs = torch.ones(n).long(), torch.full((n, 2), 0.5)
    edit = cohort.x.clone()
    edit[..., 4:8, 4:8] = 0.5
    result = Counterfactuals(
        cohort.x, edit, one, probs, probs, edit != cohort.x, flat, flat, flat, 0 * one, torch.arange(n), one, one, one,
        one, flat, "typical", 0,
    )  # fmt: skip
    write_atlas(tmp_path / "cf.zarr", result)
    asked = config(tmp_path / "run", classifier, method="difference", counterfactuals=str(tmp_path / "cf.zarr"))
    assert attribute_run(asked)["baseline"] == "counterfactual"
    found = Atlas(tmp_path / "run" / "atlas.zarr", Attributions).read()
    torch.testing.assert_close(found.map, (cohort.x - edit).abs(), atol=1e-5, rtol=0)
    few = write_atlas(tmp_path / "few.zarr", result[:3])
    short = config(tmp_path / "short", classifier, method="difference", counterfactuals=str(few.path))
    with pytest.raises(InputError, match=r"counterfactuals: expected an atlas with a row for every image"):
        attribute_run(short)
