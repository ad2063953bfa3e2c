"""Shape checking for the whole run, and what several rooms' tests share."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("MPLBACKEND", "Agg")
# One thread, here and in the processes that tests start: sums in another number of parts differ in the last bit, so
# "bit for bit" is a claim about equal thread counts.
os.environ["OMP_NUM_THREADS"] = "1"

# Every annotated shape and type of cfx is checked while the tests run; this must come before cfx is imported.
install_import_hook("cfx", "typecheck.check")

ROOT = Path(__file__).parent.parent


def pytest_configure(config):
    """Also where torch was imported before this file."""
    import torch

    torch.set_num_threads(1)


def pytest_runtest_setup(item):
    """A network that a test builds has the same weights in every run, whatever ran before it."""
    import torch

    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    """Say why tests cannot run on this machine."""
    import torch

    without_gpu = pytest.mark.skip(reason="no CUDA device on this machine")
    without_data = pytest.mark.skip(reason="no real images: ../shared/data is absent")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(without_gpu)
        if item.get_closest_marker("realdata") and not (ROOT.parent / "shared" / "data").is_dir():
            item.add_marker(without_data)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real images; for tests marked `realdata`."""
    return ROOT.parent / "shared" / "data"
