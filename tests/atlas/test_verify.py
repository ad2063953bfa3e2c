"""`verify_atlas` reads everything, names all that is wrong at once, and says what it cannot prove."""

import pytest
from atlas.test_store import make_cohort, make_result, schema_3
from small import Small, created, small

from cfx.atlas import verify_atlas, write_atlas


@pytest.fixture
def path(tmp_path):
    created(tmp_path / "a", small()).write(small()[:4])
    return tmp_path / "a"


def test_a_good_atlas_has_no_faults(path):
    found = verify_atlas(path, Small)
    assert (found.faults, found.rows, found.missing, found.proved) == ([], 6, [4, 5], True)
    assert found.arrays == 7


def test_all_faults_are_named_at_once(path):
    for name in ("x/c/0/0/0/0", "note/c/1"):
        (path / name).write_bytes(b"")
    (path / "x" / "c" / "mine").write_text("")
    (path / ".x.1.partial").write_text("")
    found = verify_atlas(path, Small).faults
    assert len(found) == 4
    assert "chunk file note/c/1 is empty" in found[0] + found[1]
    assert "chunk file x/c/0/0/0/0 is empty" in found[0] + found[1]
    assert found[2].endswith("/.x.1.partial: no part of the atlas")
    assert found[3].endswith("/x/c/mine: no part of the atlas")


def test_what_does_not_open_is_a_fault(tmp_path):
    (fault,) = verify_atlas(tmp_path / "none").faults
    assert "expected a cfx atlas" in fault


def test_an_older_schema_is_read_and_not_proved(tmp_path):
    result = make_result(4, oracle=False)
    schema_3(tmp_path / "old", result, make_cohort(result))
    found = verify_atlas(tmp_path / "old")
    assert (found.faults, found.proved, found.missing) == ([], False, [])
    (tmp_path / "old" / "target" / "c" / "0").write_bytes(b"")
    assert len(verify_atlas(tmp_path / "old").faults) == 1


def test_a_whole_result_with_its_cohort_is_as_it_was_written(tmp_path):
    result = make_result(5)
    write_atlas(tmp_path / "a", result, make_cohort(result))
    found = verify_atlas(tmp_path / "a")
    assert (found.faults, found.proved) == ([], True)
