"""Rows explained into an atlas: whoever does them and however often it stops, they are the rows of `explain`."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cfx.atlas import Atlas
from cfx.commands.rows import Task, fill, network_print, open_atlas
from cfx.core.errors import AtlasError, CheckpointError, InputError
from cfx.counterfactual import explain
from cfx.counterfactual.minimal import Minimal
from cfx.counterfactual.result import Counterfactuals
from cfx.counterfactual.standing import Standing
from cfx.models import open_network
from cfx.runtime.processes import make_accelerator
from tests.counterfactual.toys import ClassGaussian, Counted, Linear, Quadratic, class_means, cohort
from tests.tiny import checkpoint

SPACE, N, BATCH = (8, 8), 5, 2
MEANS = class_means(SPACE)
PRINTS = {"data": "a"}


def make_task(**more) -> Task:
    every = {
        "source": cohort(MEANS, N), "classifier": Quadratic(MEANS), "generator": ClassGaussian(MEANS),
        "method": Minimal(), "depth": "boundary", "target": None, "reference": None, "oracle": Linear(SPACE),
        "reviewer": None, "seed": 9, "batch_size": BATCH, "standing": Standing(),
    }  # fmt: skip
    return Task(**every | more)


def opened(path: Path, task: Task, exists="refuse", prints=PRINTS) -> Atlas[Counterfactuals]:
    return open_atlas(path, task, make_accelerator(), fingerprint=prints, attributes={"by": "hand"}, exists=exists)


def equal(a: Counterfactuals, b: Counterfactuals) -> bool:
    """Bit for bit, but for the seconds."""
    return a.plain() == b.plain() and all(
        torch.equal(torch.nan_to_num(v), torch.nan_to_num(b.parts()[k])) for k, v in a.parts().items() if k != "seconds"
    )


@pytest.fixture(scope="module")
def whole() -> Counterfactuals:
    task = make_task()
    found = explain(
        task.source, task.classifier, task.generator, depth=task.depth, oracle=task.oracle, seed=task.seed,
        batch_size=BATCH,
    )  # fmt: skip
    return found.replace(standing={})  # which a run works out and keeps itself


def test_an_atlas_is_filled_with_what_explain_returns(tmp_path, whole):
    task = make_task()
    atlas = opened(tmp_path / "a.zarr", task)
    assert atlas.missing() == list(range(N))
    assert atlas.attributes["by"] == "hand"
    found = list(fill(atlas, task, make_accelerator(), progress=False))
    assert [len(part) for part, _ in found] == [2, 2, 1]
    assert all(torch.equal(result.x, images.x) for result, images in found)
    assert equal(Counterfactuals.cat([result for result, _ in found]), whole)
    assert equal(Atlas(atlas.path, Counterfactuals).read(), whole)


def test_processes_do_each_shard_once(tmp_path, whole):
    task = make_task()
    atlas = opened(tmp_path / "a.zarr", task)
    rows = []
    for rank in (0, 1):
        place = SimpleNamespace(process_index=rank, num_processes=2, device=torch.device("cpu"), is_main_process=False)
        rows.append([i for result, _ in fill(atlas, task, place) for i in result.row.tolist()])
    assert rows == [[0, 1, 4], [2, 3]]
    assert equal(atlas.read(), whole)


def test_what_is_there_is_read_back_and_only_the_rest_is_made(tmp_path, whole):
    task = make_task()
    atlas = opened(tmp_path / "a.zarr", task)
    next(fill(atlas, task, make_accelerator(), progress=False))  # interrupted behind the first shard
    atlas.write(whole[[3]], task.source[[3]])  # and another one is there in part
    assert opened(tmp_path / "a.zarr", task, "resume").missing() == [2, 4]
    generator = Counted(task.generator)
    found = list(fill(atlas, replace(task, generator=generator), make_accelerator(), progress=False))
    assert equal(Counterfactuals.cat([result for result, _ in found]), whole)
    assert 0 < generator.rows == int(whole.nfe_unet_forward[[2, 4]].sum())


def test_an_atlas_of_something_else_is_not_taken_up(tmp_path):
    opened(tmp_path / "a.zarr", make_task())
    with pytest.raises(AtlasError, match="data"):
        opened(tmp_path / "a.zarr", make_task(), "resume", {"data": "b"})


def test_a_task_that_cannot_run_replaces_nothing(tmp_path, whole):
    task = make_task()
    list(fill(opened(tmp_path / "a.zarr", task), task, make_accelerator(), progress=False))
    with pytest.raises(InputError, match="target"):
        opened(tmp_path / "a.zarr", make_task(target=5), "overwrite")
    assert equal(Atlas(tmp_path / "a.zarr", Counterfactuals).read(), whole)


def test_a_blank_result_has_the_columns_of_one(whole):
    blank = make_task().blank(torch.device("cpu"))
    assert len(blank) == 0
    known = {name: (v.dtype, v.shape[1:]) for name, v in whole.parts().items() if v.shape[1:]}
    assert {name: (v.dtype, v.shape[1:]) for name, v in blank.parts().items() if v.shape[1:]} == known
    assert "oracle_probs_after" not in make_task(oracle=None).blank(torch.device("cpu")).parts()


class TestPrints:
    def test_networks_are_known_by_their_weights_and_named(self, tmp_path):
        same = {network_print(checkpoint(tmp_path / name / "net", "cnn", 1)) for name in "abcdefgh"}
        assert len(same) == 1
        assert network_print(checkpoint(tmp_path / "i/net", "cnn", 2)) not in same
        assert same.pop().startswith("net ")  # a refusal to resume says which network it was
        assert network_print(None) == "none"

    def test_every_kind_of_network_is_known_by_its_contents_and_settings(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        source = "import torch\n\ndef make(k):\n    torch.manual_seed(k)\n    return torch.nn.Linear(2, 2)\n"
        (tmp_path / "printed_nets.py").write_text(source)
        torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
        torch.save({"a": torch.zeros(2)}, tmp_path / "b.pt")
        (tmp_path / "scheduler_config.json").write_text("{}")
        made = {"path": "printed_nets:make", "keywords": {"k": 1}}
        file = {"path": str(tmp_path / "a.pt"), "network": "cnn"}
        prints = [
            network_print(made, open_network(made)),
            network_print(made, open_network(made | {"keywords": {"k": 2}})),  # other weights
            network_print(made | {"pixels": {"range": [0, 1]}}, open_network(made)),
            network_print(file),
            network_print(file | {"path": str(tmp_path / "b.pt")}),
            network_print(file | {"key": "model"}),
            network_print(file | {"output": {"kind": "binary"}}),
            network_print(file | {"schedule": str(tmp_path)}),
            network_print(str(tmp_path)),
        ]
        assert len({p.rpartition(" ")[2] for p in prints}) == len(prints)
        assert network_print(made, open_network(made)) == prints[0]
        assert network_print(file) == prints[3]
        (tmp_path / "scheduler_config.json").write_text('{"num_train_timesteps": 50}')
        assert network_print(file | {"schedule": str(tmp_path)}) != prints[7]
        assert network_print(str(tmp_path)) != prints[8]
        (tmp_path / "printed_nets.py").write_text(source + "# changed\n")
        assert network_print(made, open_network(made)) != prints[0]
        with pytest.raises(CheckpointError, match="nowhere: missing; expected a network's folder or file"):
            network_print("nowhere")
