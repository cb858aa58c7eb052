"""Lower the priority of this process."""

import contextlib
import os
from pathlib import Path

#: Linux divides the processor among sessions before it looks at niceness (sched(7), "The autogroup
#: feature"): without this file a nice process of one session still takes half of the time from
#: another session. It exists where the kernel has that feature.
AUTOGROUP = Path("/proc/self/autogroup")


def lower_priority(nice: int) -> None:
    """Raise this process's niceness, and that of its session where sessions are scheduled.

    Call it before threads are started: they inherit it. `nice` is 0 (no change) to 19.
    """
    if nice <= 0:
        return
    os.nice(nice)
    # missing, or read-only in a container: niceness alone must do
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(str(min(nice, 19)))
