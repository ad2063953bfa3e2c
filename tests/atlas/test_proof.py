"""Every bit of an atlas is proved, and every part of it in its place: what is damaged is named with its file."""

import json
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from small import Small, created, same, small

from cfx.atlas import Atlas, verify_atlas
from cfx.atlas.proof import Proof, prove, read_root, row_digests
from cfx.core.errors import AtlasError


@pytest.fixture
def path(tmp_path):
    """An atlas of six rows in three shards."""
    created(tmp_path / "a", small(), attributes={"config": {"lr": 1e-4}}).write(small())
    return tmp_path / "a"


def noticed(path: Path, file: str) -> bool:
    """Whether `verify_atlas` names a file; what is read meanwhile is what was written, or an error of the atlas."""
    with suppress(AtlasError):
        assert same(Atlas(path, Small).read(), small()), file
    return any(file in fault for fault in verify_atlas(path, Small).faults)


def flipped(data: bytes, chance: random.Random) -> bytes:
    place, bad = chance.randrange(8 * len(data)), bytearray(data)
    bad[place // 8] ^= 1 << place % 8
    return bytes(bad)


def test_no_bit_of_the_metadata_changes_in_silence(path):
    """Random flips in every `zarr.json`; harmless is only what is no content: white space between the root's values."""
    chance = random.Random(0)
    for file in sorted(path.rglob("zarr.json")):
        data, name = file.read_bytes(), file.relative_to(path).as_posix()
        for _ in range(12 if name == "zarr.json" else 1):
            file.write_bytes(flipped(data, chance))
            assert noticed(path, name) or json.loads(file.read_bytes()) == json.loads(data)
        file.write_bytes(data)


@pytest.mark.parametrize("how", ["flip", "truncate", "empty", "gone", "other"])
def test_no_damage_of_a_chunk_is_silent(path, how):
    chance = random.Random(how)
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json")
    for file in chance.sample(files, 5):
        data = file.read_bytes()
        bad = {"flip": flipped(data, chance), "truncate": data[: len(data) // 2], "empty": b"", "other": b"no chunk"}
        file.unlink() if how == "gone" else file.write_bytes(bad[how])
        assert noticed(path, file.relative_to(path).as_posix())
        file.write_bytes(data)
    assert verify_atlas(path, Small).faults == []


def test_a_chunk_in_the_place_of_another_is_noticed(path):
    """Two files of any array that change places, and one that is copied over another."""
    for file in sorted(p for p in path.rglob("c/1*") if p.is_file() or p.is_dir()):
        other = file.with_name("2")
        files = [file] if file.is_file() else [p for p in file.rglob("*") if p.is_file()]
        for one in files:
            two = other / one.relative_to(file) if file.is_dir() else other
            data, more = one.read_bytes(), two.read_bytes()
            for here, there in ((more, more), (more, data))[: 1 + (one.parent.name == "c")]:
                one.write_bytes(here)
                two.write_bytes(there)
                name = one.relative_to(path).as_posix()
                assert noticed(path, name) or data == more  # flags alone are alike
            one.write_bytes(data)
            two.write_bytes(more)


@pytest.mark.parametrize(
    "arrays", [["x"], ["x", "checksum"], ["note", "values.a", "x", "row", "sample", "checksum", "complete"]]
)
def test_a_shard_of_another_run_is_noticed(path, tmp_path, arrays):
    other = tmp_path / "other"
    created(other, small(seed=1), fingerprint={"classifier": "another"}).write(small(seed=1))
    for name in arrays:
        shutil.rmtree(path / name / "c" / "0", ignore_errors=True)
        copy = shutil.copytree if (other / name / "c" / "0").is_dir() else shutil.copy
        copy(other / name / "c" / "0", path / name / "c" / "0")
    with pytest.raises(AtlasError, match="is damaged at sample rows"):
        Atlas(path, Small).read()


def test_a_row_that_is_complete_cannot_be_taken_for_missing(path):
    """Flags and checksums of a shard that is not begun, over those of one that is."""
    created(path.parent / "b", small())
    for name in ("complete", "checksum"):
        for file in ("0", "0/0"):
            if (path / name / "c" / file).is_file():
                shutil.copy(path.parent / "b" / name / "c" / file.replace("0", "1", 1), path / name / "c" / file)
    with pytest.raises(AtlasError, match="is damaged at sample rows"):
        Atlas(path, Small).read()


def test_an_interrupted_write_is_no_fault(path):
    """Data and flags on the disk, checksums not yet: the rows are missing, and nothing is wrong."""
    atlas = created(path.parent / "b", small())
    kept = (path.parent / "b" / "checksum" / "c" / "1" / "0").read_bytes()
    atlas.write(small()[2:4])
    (path.parent / "b" / "checksum" / "c" / "1" / "0").write_bytes(kept)
    found = verify_atlas(path.parent / "b", Small)
    assert (found.faults, found.missing, found.rows) == ([], list(range(6)), 6)
    atlas.write(small())
    assert same(atlas.read(), small())


def test_a_note_is_proved_too(path):
    atlas = Atlas(path, Small)
    atlas.note(said="é")
    assert Atlas(path, Small).attributes["said"] == "é"
    assert atlas.attributes == read_root(path)
    prove(path, {"more": 1})
    assert verify_atlas(path, Small).faults == []
    text = (path / "zarr.json").read_text().replace('"more": 1', '"more": 2')
    (path / "zarr.json").write_text(text)
    with pytest.raises(AtlasError, match=r"a/zarr\.json: damaged; expected SHA-256"):
        read_root(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"attributes": 1}', "[" * 100_000, '{"attributes": {"cfx_schema": 5}}']
)
def test_a_root_that_is_none_is_refused_by_name(path, text):
    (path / "zarr.json").write_text(text)
    with pytest.raises(AtlasError, match=r"zarr\.json"):
        Atlas(path, Small)


VALUES = [np.zeros(4, np.float32), np.arange(24, dtype=np.int64).reshape(4, 2, 3), np.array([True, False, True, True]),
          np.array(["", "a", "a", "é"], dtype=object), np.zeros((4, 0))]  # fmt: skip


@pytest.mark.parametrize("values", VALUES, ids=["zeros", "whole", "flags", "texts", "nothing"])
def test_a_checksum_is_of_the_run_the_array_the_row_and_the_bytes(values):
    proof, rows = Proof("run", ("a", "b")), [0, 1, 2, 30]
    found = proof.of("a", rows, values)
    assert len({*found.tolist()}) == 4  # the same value is another in another row
    assert (found == proof.of("a", rows, np.array(values, copy=True, order="F"))).all()
    for other in (proof.of("b", rows, values), Proof("else", ("a",)).of("a", rows, values), proof.nothing(rows),
                  proof.of("a", [5, 6, 7, 8], values)):  # fmt: skip
        assert (other != found).all()
    if values.size and values.dtype.kind in "if":
        changed = values.copy()
        changed.reshape(4, -1)[2, -1] += 1
        assert (proof.of("a", rows, changed) != found).tolist() == [False, False, True, False]


def test_digests_of_rows_are_of_their_order_and_place():
    assert row_digests([1, 2, 3], 2) != row_digests([2, 1, 3], 2)
    assert len({*row_digests([1, 1, 1, 1], 1)}) == 4


def test_a_checksum_is_the_same_in_another_process(path):
    """No hash of Python's, which differs from one to the next."""
    code = "from cfx.atlas.proof import Proof; import numpy; print(Proof('k', ('a',)).of('a', [3], numpy.ones(1))[0])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(found) == Proof("k", ("a",)).of("a", [3], np.ones(1))[0]
