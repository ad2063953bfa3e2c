"""Whole runs of drawing masks: the files, what the summary says, resuming, refusals, processes, volumes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from cfx.atlas import read_atlas
from cfx.cli import app
from cfx.commands.check import check
from cfx.commands.filling import lines
from cfx.commands.segment import SegmentConfig, against_readers, figures_of, segment_run, shown
from cfx.core.cohort import Cohort
from cfx.core.errors import AtlasError, InputError
from cfx.data import load_cohort
from cfx.segmentation import Drawn, Segmentations, representative, sample_masks
from cfx.segmentation.metrics import diversity, ged
from tests.segmentation.toys import Threshold

TOY = "tests.segmentation.toys:Threshold"


def brains(n: int, **more) -> dict:
    return {"kind": "brain", "n": n, "seed": 3, "size": 16, "readers": {"count": 4}} | more


def values(out: Path, **changes) -> dict:
    base = {"name": "run", "out": str(out), "data": brains(6), "segmenter": {"path": TOY, "keywords": {"level": 0.3}}}
    return base | {"samples": 6, "batch_size": 8, "representative": 3} | changes


def config(out: Path, **changes) -> SegmentConfig:
    return SegmentConfig.model_validate(values(out, **changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("segment")
    return folder, segment_run(config(folder), "cfx segment run.yaml")


def test_a_run_leaves_a_whole_folder(run):
    folder, found = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == json.loads(json.dumps(found))
    assert (summary["n"], summary["samples"], summary["nfe_unet_forward"], summary["nfe_encoder"]) == (6, 6, 6.0, 1.0)
    assert (summary["sampled"], summary["collapsed"], summary["refused"]) == (6, 0, 0)
    wanted = {"diversity", "empty_share", "volume", "volume_width", "agreement", "seconds_per_image", "volume_unit"}
    wanted |= {"ged_6", "ged_3", "ged_3_representative", "ci_6", "d_max_6", "ged_debiased", "reader_diversity"}
    assert wanted <= summary.keys()
    for name in ("diversity", "empty_share", "volume"):
        assert summary[f"{name}_low"] <= summary[name] <= summary[f"{name}_high"]
    assert "6 images, 6 masks each, drawn by Threshold" in (folder / "report.html").read_text()
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert yaml.safe_load((folder / "config.yaml").read_text())["samples"] == 6


def test_the_rows_are_those_that_python_gives(run):
    rows, source = read_atlas(run[0] / "atlas.zarr", Segmentations), load_cohort(brains(6))
    made = sample_masks(source, Threshold(level=0.3), 6)
    assert torch.equal(rows.masks, made.masks)
    assert rows.labels == ["background", "region"]
    assert run[1]["diversity"] == pytest.approx(float(diversity(made.masks, 2).mean()))
    assert run[1]["empty_share"] == pytest.approx(float((made.masks.flatten(2).sum(2) == 0).double().mean()))


def test_the_same_run_goes_on_and_another_is_refused(run, monkeypatch):
    folder, found = run
    asked = []
    monkeypatch.setattr("cfx.atlas.Atlas.write", lambda *_: asked.append(1))
    assert segment_run(config(folder))["diversity"] == found["diversity"]
    assert asked == []
    with pytest.raises(AtlasError, match="another run"):
        segment_run(config(folder, seed=1))


def readers_of(cohort: Cohort, n: int = 4) -> Cohort:
    return cohort.replace(readings=sample_masks(cohort, Threshold(level=0.3), n, seed=9).masks)


def test_readers_are_compared_and_chosen_masks_stand_beside_plain_ones(tmp_path):
    cohort = readers_of(load_cohort(brains(5)))
    drawn = sample_masks(cohort, Threshold(level=0.3), 8)
    found = against_readers(drawn, cohort, 4)
    readers = cohort.readings
    assert torch.equal(found["ged_8"], ged(drawn.masks, readers, 2))
    assert torch.equal(found["ged_4"], ged(drawn.masks[:, :4], readers, 2))
    assert torch.equal(found["ged_4_representative"], ged(representative(drawn, 4).masks, readers, 2))
    assert torch.equal(found["reader_diversity"], diversity(readers, 2))
    assert set(against_readers(drawn, cohort, None)) & {"ged_4", "ged_4_representative"} == set()
    assert against_readers(drawn, cohort.replace(readings=None), 4) == {}
    assert against_readers(drawn, cohort.replace(readings=readers[:, :1]), 4) == {}


def test_readers_of_other_classes_are_refused(tmp_path):
    cohort = readers_of(load_cohort(brains(2)))
    drawn = sample_masks(cohort, Threshold(level=0.3, classes=3), 4)
    with pytest.raises(InputError, match=r"data: expected readers' masks of the network's 3 labels .*one region"):
        against_readers(drawn, cohort.replace(readings=cohort.readings > 0), None)
    two = sample_masks(cohort, Threshold(level=0.3), 4)
    with pytest.raises(InputError, match=r"readers: expected class numbers 0 \.\. 1, got 0 \.\. 2"):
        against_readers(two, cohort.replace(readings=cohort.readings * 2), None)


def test_a_row_that_was_refused_has_no_figures(tmp_path):
    cohort = readers_of(load_cohort(brains(3)))
    drawn = sample_masks(cohort, Threshold(level=0.3), 4)
    refused = drawn.replace(verdict=torch.tensor([0, int(Drawn.REFUSED), 0]))
    found = figures_of(refused, cohort, config(tmp_path, samples=4, representative=None))
    assert all(values.isnan().tolist()[1] for values in found.values())
    assert not found["diversity"][[0, 2]].isnan().any()


def test_volumes_of_several_classes(tmp_path):
    """In 3D, at 16^3."""
    cohort = Cohort(torch.rand(3, 1, 16, 16, 16) * 2 - 1, spacing=torch.full((3, 3), 2.0))
    drawn = sample_masks(cohort, Threshold(spread=0.3, classes=3, empty=0.0), 4)
    found = figures_of(drawn, cohort, config(tmp_path, samples=4, representative=None))
    assert {"volume_1", "volume_2", "volume_from_1", "volume_width_2"} <= found.keys()
    inside = (drawn.masks > 0).flatten(2).sum(2).double().mean(1) * 8  # mm^3
    assert torch.allclose(found["volume_1"] + found["volume_2"], inside)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 1}, "samples: .*greater than or equal to 2"),
        ({"representative": 7}, "expected at most samples = 6, got 7"),
        ({"segmenter": "cfx.models.classifiers:DenseNet"}, "segmenter: "),
    ],
)
def test_what_cannot_be_drawn_is_one_line_of_error(tmp_path, changes, message):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values(tmp_path / "out", **changes)))
    found = CliRunner().invoke(app, ["segment", str(path)])
    assert found.exit_code == 2
    assert re.search(message, found.output), found.output


def test_images_of_another_size_and_networks_that_draw_none_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="divisible by 4"):
        segment_run(config(tmp_path / "a", data=brains(2, size=18)))
    with pytest.raises(InputError, match=r"segmenter: expected a network that draws masks .*GaussianGenerator"):
        segment_run(config(tmp_path / "b", segmenter="tests.ood.detectors:GaussianGenerator"))
    assert not (tmp_path / "a" / "atlas.zarr").exists()


def test_a_check_says_what_would_be_drawn_and_writes_nothing(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values(tmp_path / "out")))
    words, problems = check(path, {})
    assert "cfx segment" in words
    assert "6 images, 6 masks each of region, 1 evaluations a mask" in words
    assert problems == []
    assert not (tmp_path / "out").exists()


def test_the_shipped_configurations_are_for_this_verb():
    from cfx.commands.config import verb_of

    assert {verb_of(path)[0] for path in Path("configs/segment").glob("*.yaml")} == {"segment"}


def test_the_console_says_it_in_lines(run, tmp_path):
    text = "\n".join(lines(shown(config(tmp_path)), run[1]))
    assert "masks an image" in text
    assert "diversity" in text


def test_two_processes_write_the_same_rows_bit_for_bit(run, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values(tmp_path / "out")))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "cfx"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [*launch, "segment", str(path)], capture_output=True, text=True, env=environment, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    alone, both = (read_atlas(folder / "atlas.zarr", Segmentations) for folder in (run[0], tmp_path / "out"))
    for name in ("masks", "verdict", "row", "diversity"):
        assert torch.equal(getattr(alone, name), getattr(both, name)), name
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (run[0], tmp_path / "out")]
    assert [s.pop("seconds_per_image") > 0 for s in summaries] == [True, True]
    assert summaries[0] == summaries[1]
    assert done.stdout.count("wrote") == 1
