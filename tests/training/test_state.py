"""The state of a run on disk: what is read is what was written, whole, or an error that names the file."""

import json

import pytest
import torch

from cfx.core.errors import CheckpointError
from cfx.runtime.files import digest
from cfx.training.state import (
    MANIFEST,
    load_state,
    newest_state,
    optimizer_tensors,
    restore_optimizer,
    save_state,
)


def tensors():
    g = torch.Generator().manual_seed(0)
    return {
        "main": {"a.weight": torch.randn(3, 4, generator=g), "a.steps": torch.tensor(7)},
        "other": {"flags": torch.tensor([True, False]), "half": torch.randn(2, generator=g).half()},
    }


def test_a_state_comes_back_bit_for_bit(tmp_path):
    values = {"rng": [1, 2**62], "best": 0.1, "name": "é", "none": None}
    folder = save_state(tmp_path, 12, tensors(), values)
    step, found, kept = load_state(folder)
    assert (step, kept) == (12, values)
    assert found.keys() == tensors().keys()
    for name, group in tensors().items():
        assert found[name].keys() == group.keys()
        assert all(torch.equal(found[name][k], v) and found[name][k].dtype == v.dtype for k, v in group.items())


def test_the_newest_is_the_highest_step_and_only_so_many_are_kept(tmp_path):
    assert newest_state(tmp_path / "none") is None
    for step in (2, 9, 10, 100):
        save_state(tmp_path, step, tensors(), {}, keep=3)
    (tmp_path / ".step-200.x.tmp").mkdir()  # a state that was never whole
    (tmp_path / "step-300.old").mkdir()
    assert newest_state(tmp_path) == tmp_path / "step-100"
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-10", "step-100", "step-300.old", "step-9"]


def test_the_same_step_again_takes_the_place_of_the_first(tmp_path):
    save_state(tmp_path, 3, tensors(), {"run": 1})
    folder = save_state(tmp_path, 3, {"main": {"a": torch.ones(1)}}, {"run": 2})
    assert load_state(folder)[1:] == ({"main": {"a": torch.ones(1)}}, {"run": 2})


def test_what_fails_on_the_way_leaves_the_old_state_alone(tmp_path):
    save_state(tmp_path, 3, tensors(), {"run": 1})
    with pytest.raises(TypeError):
        save_state(tmp_path, 3, tensors(), {"run": object()})
    assert load_state(newest_state(tmp_path))[2] == {"run": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["step-3"]


@pytest.mark.parametrize("damage", ["step", "values", "schema", "text", "list", "none"])
def test_a_manifest_that_was_changed_is_refused_by_name(tmp_path, damage):
    path = save_state(tmp_path, 3, tensors(), {"rate": 1}) / MANIFEST
    facts = json.loads(path.read_text())
    if damage == "schema":
        facts["schema_version"] = 99
        facts["sha256"] = digest({k: v for k, v in facts.items() if k != "sha256"})
    elif damage in facts:
        facts[damage] = 4 if damage == "step" else {"rate": 2}
    path.write_text({"text": "{", "list": "[1]"}.get(damage, json.dumps(facts)))
    if damage == "none":
        path.unlink()
    said = {"schema": "expected schema version 1, got 99", "step": "damaged", "values": "damaged"}
    with pytest.raises(CheckpointError, match=rf"step-3/state\.json: {said.get(damage, 'expected the JSON manifest')}"):
        load_state(path.parent)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_tensors_that_were_changed_are_refused_by_name(tmp_path, damage):
    path = save_state(tmp_path, 3, tensors(), {}) / "other.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink() if damage == "remove" else path.write_bytes(data if damage == "flip" else data[:-1])
    with pytest.raises(CheckpointError, match=r"other\.safetensors: (damaged|missing)"):
        load_state(path.parent)


@pytest.mark.parametrize("make", [torch.optim.AdamW, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)])
def test_an_optimizer_goes_on_as_if_it_had_never_stopped(tmp_path, make):
    def run(weights, optimizer, steps):
        for _ in steps:
            optimizer.zero_grad()
            sum(((i + 1) * w**4).sum() for i, w in enumerate(weights)).backward()
            optimizer.step()

    whole = [torch.tensor([1.0, -2.0]).requires_grad_(), torch.tensor(0.5).requires_grad_()]
    optimizer = make(whole, lr=0.01)
    run(whole, optimizer, range(3))
    folder = save_state(tmp_path, 3, {"optimizer": optimizer_tensors(optimizer)}, {})
    again = [w.detach().clone().requires_grad_() for w in whole]
    fresh = make(again, lr=0.02)
    restore_optimizer(fresh, load_state(folder)[1]["optimizer"])
    assert fresh.param_groups[0]["lr"] == 0.02  # as configured, not as saved
    fresh.param_groups[0]["lr"] = 0.01
    for weights, o in ((whole, optimizer), (again, fresh)):
        run(weights, o, range(3))
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
