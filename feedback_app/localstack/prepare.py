"""Preparation before the processes start, in child processes: base model, tables, static files,
starter project. Like the rest of the supervisor it imports neither Django nor torch.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from feedback_app.localstack.paths import FILES, HOME
from feedback_app.localstack.procfile import PACKAGED_MODEL, StackError, require_space


def prepare_model(
    say: Callable[[str], None], *, base_model: str | None = None, var: Path | None = None
) -> None:
    """Prepare the packaged base model under var/models and compile code for this CPU, once.

    Any other base model, a directory under var/models or a hub id, is loaded by the engine.
    Raises StackError.
    """
    name = base_model or os.environ.get("BASE_MODEL") or PACKAGED_MODEL
    root = var or Path(os.environ.get("PROSPECT_VAR") or HOME / "var")
    models = root.resolve() / "models"
    compiled = Path(os.environ.get("PROSPECT_CACHE_DIR") or root / "cache") / "compiled"
    is_there = (models / name / "config.json").exists()
    if name != PACKAGED_MODEL or (is_there and compiled.exists()):
        return
    if not is_there:
        require_space(models, needed=1_500_000_000)
    child = subprocess.Popen(
        [sys.executable, "-m", "trainer", "prepare", "--models", str(models), "--model", name],
        cwd=FILES,
        env={**os.environ, "PROSPECT_VAR": str(root.resolve())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert child.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
    last = "no output"
    with child:
        for line in map(str.strip, child.stdout):
            if not line or "%|" in line:  # a library's progress bar
                continue
            last = line
            if not line.startswith("python -m trainer:"):
                say(line)
    if child.returncode:
        raise StackError(last.removeprefix("python -m trainer: "))


@dataclass(frozen=True)
class SignIn:
    """A person of the starter project."""

    email: str
    password: str
    role: str


def prepare_site(*, starter: bool = False) -> list[SignIn]:
    """Migrate the database and collect static files.

    With `starter`, also create the starter project and its people once, and return their
    credentials. Raises StackError; the command has written the reason to standard error.
    """
    command = [sys.executable, "manage.py", "prepare", *(["--starter"] if starter else [])]
    done = subprocess.run(
        command,
        cwd=FILES,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # Ctrl-C ends it through its parent, without a traceback
        start_new_session=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError("Tables and static files could not be prepared: see the reason above.")
    return [SignIn(**row) for row in json.loads(done.stdout)] if starter else []
