"""What a method costs besides evaluations: memory at its peak, and seconds beside those of a plain reconstruction."""

import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.denoiser import Generative, Latent
from cfx.core.solvers import ddim_step, sample
from cfx.runtime.memory import give_back

_STATM = Path("/proc/self/statm")
_MB = 2**20
_PAUSE = 0.005  # seconds between two looks at the resident memory


class Peak:
    """Memory at its peak, in units of 2^20 bytes, known once the block has ended; None where the system cannot tell."""

    mb: float | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the block's peak memory.

    On CUDA it is all that was allocated at the peak, weights included. Elsewhere it is the growth of the process's
    resident memory over its start, which a thread reads every few milliseconds (Linux only).
    """
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.mb = torch.cuda.max_memory_allocated(device) / _MB
    elif not _STATM.exists():
        yield peak
    else:
        give_back()
        before, seen, done = _resident(), [0.0], threading.Event()

        def watch() -> None:
            while not done.wait(_PAUSE):
                seen[0] = max(seen[0], _resident())

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield peak
            seen[0] = max(seen[0], _resident())
        finally:
            done.set()
            thread.join()
        peak.mb = max(0.0, seen[0] - before)


def _resident() -> float:
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MB


def reconstruction(
    generator: Generative, batches: Sequence[Float[Tensor, "_ c *space"]], evaluations: float, device: torch.device
) -> tuple[float, int]:
    """Time a DDIM inversion and its way back, without label or classifier: the floor under every diffusion method.

    Args:
        generator: Diffusion model; a latent one also encodes and decodes.
        batches: Images, as they are worked on together.
        evaluations: Network evaluations an image to spend, rounded to an even number of at least 2.
        device: Where the generator lives.

    Returns:
        Seconds for all images, and the evaluations spent on each.
    """
    steps = min(max(1, round(evaluations / 2)), generator.schedule.T)
    times = generator.schedule.times(steps)
    began = time.perf_counter()
    with torch.no_grad():
        for part in batches:
            x = part.to(device)
            z = generator.encode(x) if isinstance(generator, Latent) else x
            z = sample(ddim_step, generator, sample(ddim_step, generator, z, times[::-1]), times)
            (generator.decode(z) if isinstance(generator, Latent) else z).cpu()
    return time.perf_counter() - began, 2 * steps


def hardware(processes: int) -> str:
    """The machine in a few words: processor, threads, GPU where there is one, processes, torch."""
    names = [f"{_processor()}, {torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        names.append(torch.cuda.get_device_name())
    if processes > 1:
        names.append(f"{processes} processes")
    return ", ".join([*names, f"torch {torch.__version__}"])


def _processor() -> str:
    """The processor's own name where Linux tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor() or platform.machine()
