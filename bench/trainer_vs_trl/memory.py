"""The peak memory of this process, and its memory before training began."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Peak:
    """Bytes of resident memory: the overall peak, and the size when training began together with
    the peak since then (None where the system does not report it)."""

    whole: int
    at_start: int | None
    since_start: int | None


@dataclass(frozen=True)
class Start:
    """The memory at the moment before training."""

    resident: int | None
    peak: int

    @classmethod
    def now(cls) -> Self:
        """Read the memory, and reset the kernel's peak (Linux)."""
        before = cls(_status("VmRSS"), _highest())
        if before.resident is None:
            return before
        try:
            _CLEAR_REFS.write_text("5")  # resets VmHWM
        except OSError:
            return cls(None, before.peak)
        return before

    def peak_since(self) -> Peak:
        """Return the peaks of the process."""
        now = _highest()
        return Peak(
            whole=max(self.peak, now),
            at_start=self.resident,
            since_start=None if self.resident is None else now,
        )


def _highest() -> int:
    # ru_maxrss survives exec: on Linux a small process can inherit its parent's peak.
    found = _status("VmHWM")
    if found is not None:
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(field: str) -> int | None:
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None
