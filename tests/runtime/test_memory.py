"""Freed memory goes back to the system, also where small values that are kept lie between."""

import sys
from pathlib import Path

import pytest
import torch

from cfx.runtime.memory import give_back


def resident() -> float:
    """Resident memory in units of 2^20 bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_holes_in_the_heap_are_given_back():
    kept, large = [], []
    for _ in range(400):
        large.append(torch.ones(30_000))  # below the size that is mapped by itself
        kept.append(torch.ones(8))
    full = resident()
    large.clear()
    give_back()
    assert full - resident() > 30  # of 46
    assert all(bool((small == 1).all()) for small in kept)
