"""Names of what is shipped are found wherever one works; a path of one's own goes first."""

from pathlib import Path

import pytest

from cfx.runtime import shipped


def test_a_bare_name_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (shipped.located("brain64-classifier") / "cfx.json").is_file()
    assert shipped.located("brain64-demo.yaml").is_file()
    assert {"brain64-classifier", "brain64-diffusion", "brain64-oracle"} <= set(shipped.names())


def test_what_is_there_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "brain64-classifier").mkdir()
    assert shipped.located("brain64-classifier") == Path("brain64-classifier")


@pytest.mark.parametrize("path", ["nothing-of-that-name", "runs/brain64-classifier", "./a/b", "../brain64-oracle"])
def test_other_paths_stay_as_they_are(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    assert shipped.located(path) == Path(path)


def test_a_wheel_goes_before_a_checkout(tmp_path, monkeypatch):
    places = tmp_path / "wheel", tmp_path / "checkout"
    for place in places:
        (place / "net").mkdir(parents=True)
        (place / "net/cfx.json").write_text("{}")
    monkeypatch.setattr(shipped, "PLACES", places)
    assert shipped.located("net") == tmp_path / "wheel/net"
    assert shipped.names() == ["net"]


def test_home_is_put_in(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shipped.located("~/net") == tmp_path / "net"
