"""Laws of the project as a whole."""

import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib

import pytest
import yaml
from typer.main import get_command

import cfx

ROOMS = ("torch", "diffusers", "monai", "accelerate", "zarr", "nibabel", "nilearn", "matplotlib")


def imported(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after the statement."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def normal(requirement: str) -> str:
    """Name of the distribution that a requirement asks for, as package indices compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=~! \[]", requirement)[0]).lower()


@pytest.fixture
def project(root):
    """The `project` table of pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def test_import_cfx_is_light():
    assert imported("import cfx").isdisjoint(ROOMS)


def test_core_stands_on_torch_numpy_scipy_alone():
    loaded = imported("import cfx.core.cohort, cfx.core.schedule, cfx.core.random")
    assert "torch" in loaded
    assert loaded.isdisjoint(set(ROOMS) - {"torch"})


def test_readers_load_their_libraries_when_asked():
    assert imported("import cfx.data.npz, cfx.data.png, cfx.data.nifti").isdisjoint(
        {"nibabel", "PIL", *ROOMS} - {"torch"}
    )


def test_version_is_the_projects(project):
    assert cfx.__version__ == project["version"]


def test_public_names_load():
    from cfx.confounder import audit
    from cfx.core import cohort
    from cfx.counterfactual import result

    assert cfx.Cohort is cohort.Cohort
    assert cfx.Counterfactuals is result.Counterfactuals
    assert cfx.audit is audit.audit
    functions = [
        "adapt", "attribute", "audit", "explain", "load", "load_cohort", "read_atlas", "write_atlas", "write_report",
    ]  # fmt: skip
    rooms = ["attribution", "calibration", "conformal", "ood", "report", "segmentation"]
    assert all(callable(getattr(cfx, name)) for name in functions)
    assert all(getattr(cfx, name).__name__ == f"cfx.{name}" for name in rooms)
    assert set(dir(cfx)) == {"Cohort", "Counterfactuals", "__version__", *rooms, *functions}
    assert cfx.report.write_report is cfx.write_report


def test_unknown_name_lists_the_known():
    with pytest.raises(AttributeError, match=r"no attribute 'explian'; it offers .*explain"):
        _ = cfx.explian


def test_every_dependency_is_constrained(root, project):
    """Each distribution that the dev set-up asks for has one exact version, and torch no local suffix."""
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.!]+", line)] == []
    pinned = {normal(line) for line in lines}
    assert {normal(line) for line in project["dependencies"] + project["optional-dependencies"]["dev"]} <= pinned


def test_tracked_text_names_no_machine(root):
    """What is published must read the same on every machine: no absolute path of somebody's disk."""
    names = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.split()
    texts = [
        root / name for name in names if name.endswith((".py", ".md", ".toml", ".yaml", ".txt", ".json", "Makefile"))
    ]
    texts = [path for path in texts if path.is_file()]
    machine = re.compile(r"(?<![\w.])/(?:home|Users|root|work|tmp|mnt|scratch)/\w")
    found = [path.name for path in texts if machine.search(path.read_text(encoding="utf-8"))]
    assert found == []


def pages(root):
    """The pages that say what to run and where things are; not the history, nor the cards of trained networks."""
    return [*(root / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")), *root.glob("docs/**/*.md")]


def test_pages_name_existing_files(root):
    """Paths of the repository, in commands, in text and in links; `{a,b}`, `*` and `$x` stand for several."""
    path = re.compile(r"(?<![\w./-])(?:cfx|checkpoints|configs|docs|tests)/[\w./{},*$-]*[\w}/*]")
    link = re.compile(r"\]\((?!http)([^)#]+)\)")
    missing = [
        f"{page.name}: {name}"
        for page in pages(root)
        for name, base in [(n, root) for n in path.findall(page.read_text())]
        + [(n, page.parent) for n in link.findall(page.read_text())]
        if not all(any(base.glob(one)) for one in spelt_out(name.rstrip("/")))
    ]
    assert missing == []


def spelt_out(name):
    """The patterns that a path with braces and variables stands for."""
    name = re.sub(r"\$\w+", "*", name)
    if not (found := re.search(r"{([^{}]*)}", name)):
        return [name]
    before, after = name[: found.start()], name[found.end() :]
    return [one for part in found[1].split(",") for one in spelt_out(before + part + after)]


def test_pages_name_existing_commands(root):
    """Every `cfx ...` and `make ...` in a block of commands."""
    blocks = [b for page in pages(root) for b in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)]
    words = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    commands = get_command(import_app()).commands
    benches = commands["bench"].commands
    targets = re.findall(r"^(\w+):", (root / "Makefile").read_text(), re.MULTILINE)
    assert {w[1] for w in words if w[:1] in (["cfx"], ["$cfx"])} <= set(commands)
    assert {w[2] for w in words if w[1:2] == ["bench"]} <= set(benches)
    made = {w[1] for w in words if w[:1] == ["make"]}
    assert {"demo", "test"} <= made <= set(targets)


def import_app():
    """The command line."""
    from cfx.cli import app

    return app


def test_the_pages_tables_are_those_of_the_runs(root):
    script = runpy.run_path(str(root / "docs" / "figures.py"))
    texts = [(root / page).read_text() for page in script["PAGES"]]
    assert sorted(re.findall(r"<!-- figures: (.*) -->", "".join(texts))) == sorted(script["TABLES"])
    assert [script["filled"](text) for text in texts] == texts, "run `make figures`"


def test_the_checkpoints_page_gives_the_loss_of_the_shipped_generator(root):
    figures = json.loads((root / "checkpoints/brain64-diffusion/cfx.json").read_text())["provenance"]["figures"]
    line = next(v for v in (root / "docs/checkpoints.md").read_text().splitlines() if "`brain64-diffusion`" in v)
    assert f"v-loss {figures['loss']:.4f}; {figures['loss_without_label']:.4f} without" in line


def test_one_version_and_one_date(root, project):
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    version, date = re.findall(r"^## \[([\d.]+)\] - (.*)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert (citation["version"], str(citation["date-released"])) == (version, date)
    assert version == project["version"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_wheel_has_what_the_demo_needs_and_stays_small(root):
    build = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    included = build["targets"]["wheel"]["force-include"]
    demo = yaml.safe_load((root / "configs/explain/brain64-demo.yaml").read_text())
    for network in ("classifier", "generator", "oracle"):
        assert included[f"checkpoints/{demo[network]}"] == f"cfx/shipped/{demo[network]}"
    assert included["configs/explain/brain64-demo.yaml"] == "cfx/shipped/brain64-demo.yaml"
    for name in re.findall(r'cfx\.load\("([\w-]+)"\)(?!.*in a checkout)', (root / "README.md").read_text()):
        assert included[f"checkpoints/{name}"] == f"cfx/shipped/{name}"
    places = [root / place for place in ("cfx", *included)]
    files = [file for place in places for file in (place.rglob("*") if place.is_dir() else [place])]
    assert sum(f.stat().st_size for f in files if f.is_file() and "__pycache__" not in f.parts) < 12e6
