"""Laws of the project as a whole."""

import re
import subprocess
import sys
import tomllib

import pytest

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
    from cfx.core import cohort
    from cfx.counterfactual import result

    assert cfx.Cohort is cohort.Cohort
    assert cfx.Counterfactuals is result.Counterfactuals
    assert callable(cfx.explain)
    assert set(dir(cfx)) == {"Cohort", "Counterfactuals", "explain", "__version__"}


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
