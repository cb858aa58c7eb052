"""glibc's memory allocator, for processes with many threads."""

import ctypes
from contextlib import suppress

#: malloc.h
M_ARENA_MAX = -8
ARENAS = 2


def arenas_limit(count: int = ARENAS) -> None:
    """Let all threads allocate from this many arenas; call it before threads start.

    By default glibc makes up to eight arenas for each core, and gives freed memory of one only to
    threads that use it. Other C libraries have no such setting, and nothing changes there.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, count)
