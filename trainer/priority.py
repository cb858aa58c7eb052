"""Lower the priority of this process."""

import contextlib
import os
from pathlib import Path

#: Linux divides the processor among sessions before it looks at niceness (sched(7), "The autogroup
#: feature"): without this file a nice process of one session still takes half of the time from
#: another session. It exists where the kernel has that feature.
AUTOGROUP = Path("/proc/self/autogroup")


def lower_priority(nice: int) -> None:
    """Raise this process's niceness, and that of a worker's session where sessions are scheduled.

    Call it before threads are started: they inherit it. `nice` is 0 (no change) to 19.
    """
    if nice <= 0:
        return
    os.nice(nice)
    if not of_a_worker():
        return
    # missing, or read-only in a container: niceness alone must do
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(str(min(nice, 19)))


def of_a_worker() -> bool:
    """Return whether this process's session holds nothing but a worker and its trainer.

    A session with a terminal, or one that a shell shares among commands, has other processes,
    which would stay at the lower priority after this one has ended.
    """
    if os.getsid(0) not in (os.getpid(), os.getppid()):
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return True
    return False
