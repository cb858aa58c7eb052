"""Return memory that the C library holds after it was freed."""

import ctypes
import gc


def release_free_memory() -> None:
    """Collect garbage and return freed memory to the system.

    glibc keeps what was freed for later allocations: some hundred MB after a model's weights have
    been converted or packed, which nothing of that size follows.
    """
    gc.collect()
    trim()


def trim() -> None:
    """Return memory that is freed already. With glibc this is malloc_trim, which takes less than a
    millisecond where little is free; elsewhere nothing is done."""
    function = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if function is not None:
        function(ctypes.c_size_t(0))
