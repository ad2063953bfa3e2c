"""A finished measurement comes back as it was; an unfinished, damaged or other one does not."""

from pathlib import Path

import pytest
import torch

from cfx.atlas import Atlas, write_atlas
from cfx.commands.bench.cells import Cell, begun, finish, kept, laws_path
from cfx.counterfactual.result import Counterfactuals
from tests.counterfactual.metrics.hand_made import result_of

PRINTS = {"data": "a", "network": "b"}


@pytest.fixture
def cell() -> Cell:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(3, 1, 4, 4, generator=g) - 0.5
    laws = {"composition": torch.tensor([0.1, torch.nan, 0.3], dtype=torch.float64)}
    return Cell(result_of(x, x + 0.1), {"peak_memory_mb": None, "ddim_seconds": 0.5}, "1 chip", laws)


@pytest.fixture
def path(tmp_path: Path, cell: Cell) -> Path:
    """Results on disk, the bench interrupted before it said what they cost."""
    write_atlas(tmp_path / "minimal.zarr", cell.result, fingerprint=PRINTS)
    return tmp_path / "minimal.zarr"


def damage(store: Path) -> None:
    """Turn over a bit of the largest chunk."""
    chunk = max((p for p in store.rglob("*") if p.is_file() and "/c/" in str(p)), key=lambda p: p.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 3] ^= 1
    chunk.write_bytes(bytes(data))


def test_a_finished_cell_comes_back(path, cell):
    finish(path, cell, PRINTS)
    found = kept(path, PRINTS)
    assert found is not None
    assert all(torch.equal(v, cell.result.parts()[k]) for k, v in found.result.parts().items())
    assert (found.cost, found.hardware) == (cell.cost, cell.hardware)
    torch.testing.assert_close(found.laws["composition"], cell.laws["composition"], equal_nan=True, rtol=0, atol=0)
    assert not begun(path, PRINTS)


def test_without_laws_none_are_kept(path, cell):
    finish(path, Cell(cell.result, cell.cost, cell.hardware), PRINTS)
    assert not laws_path(path).exists()
    assert kept(path, PRINTS).laws == {}


def test_without_its_cost_it_has_begun_and_is_not_finished(path):
    assert kept(path, PRINTS) is None
    assert begun(path, PRINTS)


def test_a_row_that_is_missing_is_no_finished_cell(tmp_path, cell):
    path = tmp_path / "part.zarr"
    Atlas.create(path, cell.result, rows=range(3), fingerprint=PRINTS).write(cell.result[:2])
    finish(path, cell, PRINTS)
    assert kept(path, PRINTS) is None


def test_another_fingerprint_is_another_cell(path, cell):
    other = PRINTS | {"network": "c"}
    assert not begun(path, other)
    finish(path, cell, PRINTS)
    assert kept(path, other) is None


def test_nothing_is_no_cell(tmp_path):
    assert kept(tmp_path / "none.zarr", PRINTS) is None
    assert not begun(tmp_path / "none.zarr", PRINTS)


@pytest.mark.parametrize("which", ["results", "laws"])
def test_a_damaged_cell_is_measured_anew(path, cell, which):
    finish(path, cell, PRINTS)
    damage(path if which == "results" else laws_path(path))
    assert kept(path, PRINTS) is None
    assert not begun(path, PRINTS)


def test_laws_lie_beside_the_results_and_are_those_of_the_last_time(path, cell):
    assert laws_path(Path("out/typical/minimal.zarr")) == Path("out/typical/minimal-laws.zarr")
    for law in (1.0, 2.0):
        finish(path, Cell(cell.result, {}, "x", {"reversibility": torch.full((3,), law)}), PRINTS)
    assert kept(path, PRINTS).laws["reversibility"].tolist() == [2, 2, 2]
    assert torch.equal(Atlas(path, Counterfactuals).read().x, cell.result.x)
