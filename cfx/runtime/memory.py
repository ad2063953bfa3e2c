"""Memory that is free but not given back: what an allocator keeps can be several times what a process holds."""

import ctypes
import gc


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc).

    Small values that are kept between large ones that are not leave holes in the heap: a run over many batches would
    grow with their number though it holds one at a time.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # a C library other than glibc
        return
