"""Processes with a directory of their own, as on another host, by a mount that only they see."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

#: Mounts its first argument at the second, and becomes the rest.
SCRIPT = 'mount --bind "$0" "$1" && shift && exec "$@"'


def mounts_allowed() -> bool:
    """Return whether a process may have mounts of its own here."""
    program = shutil.which("unshare")
    if program is None:
        return False
    tried = subprocess.run([program, "--mount", "true"], capture_output=True, check=False)
    return tried.returncode == 0


def with_directory(directory: Path, seen_as: Path, command: Sequence[str]) -> list[str]:
    """Return the command, for a process that sees a directory at another path. Makes both."""
    for path in (directory, seen_as):
        path.mkdir(parents=True, exist_ok=True)
    return ["unshare", "--mount", "sh", "-c", SCRIPT, str(directory), str(seen_as), *command]
