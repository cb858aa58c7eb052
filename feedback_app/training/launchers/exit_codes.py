"""Exit codes of the trainer's processes where what started them returns another code.

Each process leaves an empty file RANK.CODE (`python -m trainer train --exit-codes DIR`).
"""

import shutil
from pathlib import Path

NAME = "exit_codes"


def exit_codes_directory(directory: Path) -> Path:
    """Return an empty directory for the exit codes of a job in `directory`."""
    path = directory / NAME
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def exit_codes_read(directory: Path) -> list[int]:
    """Return the exit codes that the processes of a job have left."""
    return [int(path.suffix[1:]) for path in (directory / NAME).glob("*.*")]
