"""Return memory that the C library holds after it was freed."""

import ctypes
import gc


def release_free_memory() -> None:
    """Return freed memory to the system. With glibc this is malloc_trim; elsewhere nothing is done.

    glibc keeps what was freed for later allocations: some hundred MB after a model's weights have
    been converted or packed, which nothing of that size follows.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
