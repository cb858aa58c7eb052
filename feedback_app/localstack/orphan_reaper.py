"""Ends the processes of a stack whose owner is gone, also when the owner was killed.

A process of its own that reads `+GROUP` and `-GROUP` lines. The end of its input means that the
owner has ended: what is still listed gets SIGTERM, so that a trainer writes its checkpoint, and
SIGKILL after a while. It needs nothing but the standard library and works on any POSIX system.
"""

import os
import signal
import sys
import time

GRACE_SECONDS = 20.0


def alive(group: int) -> bool:
    """Whether the process group still has members."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of zombies
        return False
    return True


def signal_group(group: int, number: int) -> None:
    """Sends a signal to a group that may be gone already."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def main() -> None:
    """Follows standard input to its end, then ends what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends last, when its input ends
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        signal_group(group, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while any(map(alive, groups)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for group in groups:
        signal_group(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
