"""Files are whole or as they were, and what is read back is what was written, or is refused."""

import hashlib
import pickle
import stat
from pathlib import Path

import pytest
import torch

from cfx.core.errors import CfxError, CheckpointError
from cfx.runtime.files import (
    atomic_folder,
    check_files,
    digest,
    fingerprint,
    read_tensors,
    resolved,
    sha256,
    write_tensors,
    write_whole,
)

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


def test_the_hash_of_a_file_is_sha_256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == ABC
    check_files(tmp_path, {"a": ABC})


def test_a_missing_or_damaged_file_is_named_with_both_hashes(tmp_path):
    with pytest.raises(CheckpointError, match=rf"a: missing; expected a file with SHA-256 {ABC}"):
        check_files(tmp_path, {"a": ABC})
    (tmp_path / "a").write_bytes(b"abd")
    got = hashlib.sha256(b"abd").hexdigest()
    with pytest.raises(CheckpointError, match=rf"a: damaged; expected SHA-256 {ABC}, got {got}"):
        check_files(tmp_path, {"a": ABC})


def test_a_digest_is_of_values_not_of_their_order():
    assert digest({"a": 1, "b": {"c": [1, 2], "d": None}}) == digest({"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})


def test_a_fingerprint_is_of_names_shapes_kinds_and_values():
    x = torch.arange(6.0).reshape(2, 3)
    same = fingerprint({"x": x, "y": x[0]})
    assert fingerprint({"y": x[0].clone(), "x": x.t().contiguous().t()}) == same  # neither order nor layout counts
    others = [
        {"x": x, "z": x[0]},
        {"x": x.reshape(3, 2), "y": x[0]},
        {"x": x.double(), "y": x[0]},
        {"x": x + torch.eye(2, 3) * 1e-6, "y": x[0]},
        {"x": x},
    ]
    assert same not in {fingerprint(other) for other in others}


def test_a_folder_takes_its_place_whole(tmp_path):
    place = tmp_path / "run"
    for content in ("first", "second"):
        with atomic_folder(place) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / content).write_text(content)
            assert not (place / "inner" / content).exists()
        assert [p.name for p in (place / "inner").iterdir()] == [content]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o755


def test_a_folder_that_fails_leaves_what_was_there(tmp_path):
    with atomic_folder(tmp_path / "run") as folder:
        (folder / "a").write_text("old")

    def fail():
        with atomic_folder(tmp_path / "run") as folder:
            (folder / "a").write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert (tmp_path / "run" / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_tensors_come_back_bit_for_bit(tmp_path):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    tensors = {"x": x, "t": x.t(), "part": x[1:], "half": x.bfloat16(), "flag": x > 0, "long": torch.tensor(7)}
    tensors["nan"] = torch.tensor([float("nan"), -0.0])
    write_tensors(tmp_path / "t.safetensors", tensors)
    back = read_tensors(tmp_path / "t.safetensors")
    assert set(back) == set(tensors)
    for name, value in tensors.items():
        assert back[name].dtype == value.dtype
        torch.testing.assert_close(back[name], value, rtol=0, atol=0, equal_nan=True)
    assert torch.signbit(back["nan"][1])
    for _ in range(8):  # what is written again is the same bytes, so that a hash of a file is one of its tensors
        write_tensors(tmp_path / "again.safetensors", dict(reversed(tensors.items())))
        assert sha256(tmp_path / "again.safetensors") == sha256(tmp_path / "t.safetensors")


@pytest.mark.parametrize("kind", ["missing", "pickle", "cut"])
def test_what_is_no_whole_file_of_tensors_is_refused(tmp_path, kind):
    path = tmp_path / "t.safetensors"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"x": 1}))
    if kind == "cut":
        write_tensors(path, {"x": torch.zeros(100)})
        path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"t\.safetensors: expected a safetensors file"):
        read_tensors(path)


@pytest.mark.parametrize("data", ["text \u00e4\n", b"\x00\xff"])
def test_a_file_is_written_whole_into_a_new_folder_and_over_an_old_file(tmp_path, data):
    path = tmp_path / "new" / "file"
    write_whole(path, "before")
    write_whole(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(CfxError, match="file: could not write"):
        write_whole(tmp_path / "file", "text")
    (tmp_path / "plain").write_text("old")
    with pytest.raises(CfxError, match="could not write"):
        write_whole(tmp_path / "plain" / "file", "text")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "plain"]
    assert (tmp_path / "plain").read_text() == "old"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("~/runs/x", "/me/runs/x"), ("$STORE/x", "/data/x"), ("${STORE}/x", "/data/x"), ("a/~b", "a/~b"),
        ("$NOBODY_SET_THIS/x", "$NOBODY_SET_THIS/x"), ("/abs/x", "/abs/x"), (Path("x"), "x"),
    ],
)  # fmt: skip
def test_home_and_variables_are_put_into_paths_and_nothing_else(monkeypatch, path, found):
    monkeypatch.setenv("HOME", "/me")
    monkeypatch.setenv("STORE", "/data")
    assert resolved(path) == Path(found)
