"""Memory and time of a block of work, against known amounts."""

import math
import time
from pathlib import Path

import pytest
import torch

from cfx.commands.bench.cost import hardware, peak_memory, reconstruction
from tests.counterfactual.toys import ClassGaussian, Counted, class_means

CPU = torch.device("cpu")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc on this system")
def test_peak_memory_sees_what_was_freed_again():
    with peak_memory(CPU) as small:
        pass
    with peak_memory(CPU) as large:
        held = torch.ones(16 * 2**20)  # 64 MB
        time.sleep(0.1)  # several looks of the thread that watches
        del held
    assert small.mb < 16
    assert 40 < large.mb < 96  # pages that the process still held may be used again


def test_peak_memory_of_a_failing_block_lets_the_error_through():
    with pytest.raises(ZeroDivisionError), peak_memory(CPU):
        _ = 1 / 0


@pytest.mark.gpu
def test_peak_memory_of_a_gpu_is_what_was_allocated():
    device = torch.device("cuda", 0)
    with peak_memory(device) as peak:
        held = torch.ones(16 * 2**20, device=device)
        del held
    assert peak.mb >= 64


@pytest.mark.parametrize(("asked", "spent"), [(0.0, 2), (5.0, 4), (11.2, 12)])
def test_reconstruction_spends_the_evaluations_asked_for(asked, spent):
    generator = Counted(ClassGaussian(class_means((8, 8))))
    seconds, nfe = reconstruction(generator, torch.zeros(5, 1, 8, 8).split(2), asked, CPU)
    assert nfe == spent
    assert generator.rows == 5 * spent
    assert seconds > 0
    assert math.isfinite(seconds)


def test_hardware_names_processor_and_torch():
    assert "threads" in hardware(1)
    assert "2 processes" in hardware(2)
    assert torch.__version__ in hardware(1)
