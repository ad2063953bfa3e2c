"""The README's own lines, run as they stand (with fewer images): what a new user does first."""

import re

import pytest
import yaml

from cfx.commands.explain import ExplainConfig
from cfx.runtime.config import check


@pytest.fixture
def readme(root):
    return (root / "README.md").read_text()


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_it_is_short(readme):
    assert len(readme.splitlines()) <= 160
    first = blocks(readme, "python")[0]
    lines = [line for line in first.splitlines() if line.strip() and not line.startswith("import")]
    assert len(lines) <= 10


def test_python(readme, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    for block in blocks(readme, "python"):
        exec(block.replace('"n": 8', '"n": 2'), found)
    assert set(found["result"].verdicts) == {"flipped"}
    assert "Counterfactuals: 2 rows" in capsys.readouterr().out
    assert (tmp_path / "atlas.zarr/zarr.json").is_file()
    assert "decides otherwise" in (tmp_path / "report.html").read_text()
    logits = found["classifier"](found["images"].x)
    p = found["mine"]((found["images"].x + 1) / 2)
    assert logits.sigmoid().allclose(p, atol=1e-5)


def test_yaml(readme):
    (text,) = blocks(readme, "yaml")
    values = yaml.safe_load(text)
    config = check(ExplainConfig, values)
    assert config.folder.parts[-2:] == ("runs", "scans")
    assert len(values) <= 12
