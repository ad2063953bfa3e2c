"""The page: what it says is what was found, worst first, and it needs nothing but itself."""

import re
from pathlib import Path

import pytest
import torch

from cfx.atlas import write_atlas
from cfx.core.cohort import Cohort
from cfx.core.conformal import conformal_p_values
from cfx.ood import OodScores
from cfx.report.ood import figures
from cfx.report.ood import page as module
from cfx.report.ood.page import Calibrated, ood_page, sentences, worst_first

CALIBRATION = torch.arange(1.0, 40.0)  # 39 scores: the level .05 needs 2 of them at most above


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "uri", lambda figure: "data:image/png;base64,AAAA")


def scored(score: torch.Tensor, maps: bool = True, calibration: torch.Tensor = CALIBRATION) -> OodScores:
    n, p = len(score), conformal_p_values(calibration.double(), score.double())
    zero = {name: torch.zeros(n, dtype=torch.long) for name in vars(OodScores)["__annotations__"] if "nfe_" in name}
    return OodScores(
        score=score, p=p, verdict=(p <= 0.05).long(), row=torch.arange(n), seconds=torch.ones(n), detector="toy",
        level=0.05, calibrated=len(calibration), map=torch.rand(n, 1, 6, 6) if maps else None,
        statistics={"two_sided": score}, **zero,
    )  # fmt: skip


def written(path: Path, scores: OodScores, space: tuple[int, ...] = (6, 6)) -> str:
    cohort = Cohort(torch.zeros(len(scores), 1, *space), ids=tuple(f"<{i}>" for i in range(len(scores))))
    return ood_page(write_atlas(path / "a.zarr", scores, cohort), Calibrated(CALIBRATION, 11, {"k": 3}), "A & B")


def test_the_first_screen_says_how_many_and_what_that_means(tmp_path):
    scores = scored(torch.tensor([5.0, 100.0, 38.5, 2.0]))
    said = sentences(scores, Calibrated(CALIBRATION, 11, {}))
    assert said[0].startswith("2 of 4 images are out of distribution (50 %, 95 % interval 15")
    assert "about 0.2 would be out by chance" in said[1]
    assert "fitted to 11 in-distribution images and calibrated on 39" in said[3]
    html = written(tmp_path, scores)
    assert all(sentence.split("(")[0] in html for sentence in said)
    assert "A &amp; B" in html


def test_the_worst_comes_first(tmp_path):
    scores = scored(torch.tensor([5.0, 100.0, 38.5, 2.0]))
    assert worst_first(scores) == [1, 2, 0, 3]
    html = written(tmp_path, scores)
    assert re.findall(r"<article.*?<strong>&lt;(\d)", html, re.S) == ["1", "2", "0", "3"]
    assert re.findall(r'badge (\w+)">(\w+)', html) == [("refused", "out")] * 2 + [("already", "in")] * 2


def test_the_page_needs_nothing_else_and_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CARDS", 2)
    monkeypatch.setattr(module, "LINES", 3)
    html = written(tmp_path, scored(torch.arange(5.0)))
    assert html.count("<article") == 2
    assert "2 more are in the atlas" in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_a_level_that_cannot_be_reached_is_said():
    few = torch.arange(5.0)
    said = sentences(scored(torch.tensor([9.0]), calibration=few), Calibrated(few, 3, {}))
    assert said[0].startswith("0 of 1 images are")
    assert "nothing can be out at level 5 %; it takes at least 19." in said[1]
    assert Calibrated(few, 3, {}).threshold(0.05) is None


def test_the_threshold_parts_the_verdicts():
    threshold = Calibrated(CALIBRATION, 3, {}).threshold(0.05)
    grid = torch.linspace(0, 50, 501)
    assert torch.equal(scored(grid).verdict == 1, grid > threshold)


def test_a_detector_without_maps_and_volumes_have_pages_too(tmp_path):
    assert "one scale for all maps" not in written(tmp_path, scored(torch.arange(3.0), maps=False))
    volumes = scored(torch.arange(2.0), maps=False).replace(map=torch.rand(2, 1, 4, 4, 4))
    (tmp_path / "3d").mkdir()
    assert written(tmp_path / "3d", volumes, (4, 4, 4)).count("<article") == 2
