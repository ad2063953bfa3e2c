"""The page on own data runs as it stands, but for the number of steps."""

import re
from contextlib import chdir
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cfx.atlas import Atlas
from cfx.cli import app
from cfx.data import NiftiConfig, load_cohort

PAGE = Path(__file__).parent.parent.parent / "docs" / "own-data.md"
SHORT = {
    "classifier.yaml": ["--steps", "60", "--ema", "0.9"],
    "generator.yaml": ["--steps", "2", "--optimizer.warmup", "1", "--batch_size", "4"],
    "explain.yaml": ["--rows", "2"],
}


def blocks(language: str) -> list[str]:
    """The page's blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the page was followed."""
    folder = tmp_path_factory.mktemp("followed")
    data, looked = blocks("python")
    with chdir(folder):
        exec(data, {})
        for block in blocks("yaml"):
            Path(re.match(r"# (\S+)", block)[1]).write_text(block)
        for line in blocks("sh")[0].splitlines():
            _, verb, file = line.split()
            done = CliRunner().invoke(app, [verb, file, *SHORT[file]], catch_exceptions=False)
            assert done.exit_code == 0, done.output
        exec(looked, {})
    return folder


def test_the_tutorial_leaves_a_report_and_an_atlas(followed):
    assert (followed / "runs/explained/report.html").stat().st_size > 1000
    atlas = Atlas(followed / "runs/explained/atlas.zarr")
    assert len(atlas.read()) == 2


def test_what_the_tutorial_wrote_is_read_as_the_page_says(followed):
    config = {"path": followed / "scans", "label": "group", "slice_axis": "axial", "window": (0, 230)}
    train, test = (load_cohort(NiftiConfig(table=followed / f"{part}.csv", **config)) for part in ("train", "test"))
    assert list(train.classes) == list(test.classes) == ["healthy", "patient"]
    assert (len(train), len(test)) == (48, 12)
    assert test.categories == {"subject": tuple(f"s{i}" for i in range(24, 30)), "sex": ("F", "M")}
    assert not set(train.categories["subject"]) & set(test.categories["subject"])
    assert train.x[train.y == 1].amax() > train.x[train.y == 0].amax()
