"""A run that fills an atlas: which rows are worked on, by whom, and what is said on the console."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from cfx.atlas import Atlas
from cfx.commands.filling import Filling, FillingConfig, first, lines
from cfx.core.cohort import Cohort
from cfx.core.errors import AtlasError
from cfx.ood import OodScores
from cfx.runtime.config import RunConfig
from cfx.runtime.folder import RunFolder
from cfx.segmentation import meanings  # noqa: F401 - the headings

COHORT = Cohort(torch.linspace(-1, 1, 10).reshape(10, 1, 1, 1).expand(10, 1, 4, 4), ids=tuple("abcdefghij"))


def scores(cohort: Cohort, rows: list[int]) -> OodScores:
    sizes = {"n": len(rows), "space": (4, 4)}
    blank = OodScores.blank(len(rows), sizes, detector="toy", level=0.1, calibrated=9)
    return blank.replace(
        row=torch.tensor(rows, dtype=torch.long), score=cohort.x.flatten(1).mean(1), p=torch.ones(len(rows))
    )


@dataclass
class Few:
    """Two processes, of which this is one, without a world."""

    process_index: int
    num_processes: int = 1
    device = torch.device("cpu")

    @property
    def is_main_process(self) -> bool:
        return self.process_index == 0


class Toy(FillingConfig, RunConfig):
    """A run."""


def config(out: Path, **more) -> Toy:
    data = {"kind": "brain", "n": 10, "size": 16}
    return Toy.model_validate({"name": "x", "out": str(out), "data": data, "batch_size": 4} | more)


def filling(out: Path, seen: list, accelerator=None, **more) -> Filling[OodScores]:
    def work(cohort: Cohort, rows: list[int]) -> OodScores:
        seen.append(rows)
        return scores(cohort, rows)

    values = config(out, **more)
    return Filling(
        RunFolder(out), values, first(values, COHORT), lambda: scores(COHORT[:0], []), work, {"of": "toy"}, "cfx toy",
        accelerator or Accelerator(),
    )  # fmt: skip


def test_every_row_is_worked_on_once_and_the_same_command_goes_on(tmp_path):
    seen: list[list[int]] = []
    atlas = filling(tmp_path, seen).filled(OodScores)
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert torch.allclose(atlas.read().score, COHORT.x[:, 0, 0, 0])
    assert atlas.read_cohort().ids == COHORT.ids
    assert atlas.attributes["made"]["command"] == "cfx toy"
    assert set(atlas.attributes["cfx_fingerprint"]) == {"of", "seed", "version"}
    filling(tmp_path, seen).filled(OodScores)
    assert len(seen) == 3
    with pytest.raises(AtlasError, match="another run"):
        filling(tmp_path, seen, seed=1).filled(OodScores)
    filling(tmp_path, seen, seed=1, resume=False).filled(OodScores)
    assert len(seen) == 6


def test_processes_share_whole_shards(tmp_path, monkeypatch):
    seen: list[list[int]] = []
    monkeypatch.setattr("cfx.commands.filling.dealt", lambda n, a: range(a.process_index, n, 2))
    for process in (0, 1):
        filling(tmp_path, seen, Few(process)).filled(OodScores)
    assert seen == [[0, 1, 2, 3], [8, 9], [4, 5, 6, 7]]
    assert Atlas(tmp_path / "atlas.zarr").missing() == []


def test_the_first_rows_alone(tmp_path):
    seen: list[list[int]] = []
    filling(tmp_path, seen, rows=3).filled(OodScores)
    assert seen == [[0, 1, 2]]
    assert first(config(tmp_path), COHORT) is COHORT


def test_lines_have_the_heading_and_the_interval_of_what_is_there():
    found = lines(("n", "ged_4", "ci_4"), {"n": 3, "ged_4": 0.25, "ged_4_low": 0.2, "ged_4_high": 0.3})
    assert len(found) == 2
    assert found[0].split() == ["n", "3"]
    assert found[1].split()[0] == "GED_4"
    assert found[1].endswith("0.250 [0.200, 0.300]")
