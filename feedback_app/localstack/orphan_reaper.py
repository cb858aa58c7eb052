"""Orphan reaper: ends the processes of a stack whose supervisor has ended or was killed.

A separate process that reads `+GROUP` and `-GROUP` lines. The end of its input means that the
supervisor has ended: the listed process groups get SIGTERM, so that a trainer writes its
checkpoint, and SIGKILL after GRACE_SECONDS. Uses only the standard library; works on any POSIX
system.
"""

import os
import signal
import sys
import time

GRACE_SECONDS = 20.0


def alive(group: int) -> bool:
    """Return whether the process group still has members."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS raises this for a group of zombies
        return False
    return True


def signal_group(group: int, number: int) -> None:
    """Send a signal to a group, which may have ended already."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def main() -> None:
    """Read standard input to its end, then end the groups that are still listed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends after its input has ended
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
