"""Where compiled loops are kept between processes.

numba recompiles a function when the function's own file or the processor changes. Here
functions of several files are compiled into one another, so each version of these files has a
directory of its own.
"""

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from trainer.cache_dir import cache_dir

#: Files whose functions are compiled into one another; a test looks for others.
KERNEL_FILES = (
    "fused.py",
    "loops.py",
    "phases.py",
    "vectors.py",
    "atomics.py",
    "llvm.py",
)
#: Directories of other versions that are kept: several checkouts may share one cache.
OTHERS_KEPT = 3


def directory() -> Path:
    """Return the directory for code compiled from these files by this numba."""
    digest = hashlib.sha256(version("numba").encode())
    for name in KERNEL_FILES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return cache_dir("compiled") / digest.hexdigest()[:16]


def is_compiled(name: str) -> bool:
    """Return whether code of a function, named `module.function`, is kept there."""
    return next(directory().rglob(f"{name}-*.nbc"), None) is not None


def make_directory() -> Path | None:
    """Create the directory and delete those of old versions; return None if it cannot be written.

    Then every process compiles for itself.
    """
    found = directory()
    try:
        found.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=found):
            pass
    except OSError:
        return None
    with suppress(OSError):  # another process may be deleting too
        os.utime(found)  # used now
        others = [one for one in found.parent.iterdir() if one.is_dir() and one != found]
        others.sort(key=lambda one: one.stat().st_mtime, reverse=True)
        for old in others[OTHERS_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
    return found
