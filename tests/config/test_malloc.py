"""The limit of glibc's arenas, in a process of its own."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import ctypes, sys, threading
from feedback_app.config.malloc import arenas_limit
if sys.argv[1] == "limited":
    arenas_limit()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
started = threading.Barrier(8)

def allocate():
    started.wait()
    libc.malloc(100_000)
    started.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
output = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, output)
libc.fflush(output)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_threads_share_the_arenas() -> None:
    def arenas(how: str) -> int:
        command = [sys.executable, "-c", COUNT, how]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        return found.stdout.count("<heap nr=")

    assert arenas("limited") <= 2
    assert arenas("unlimited") > 2
