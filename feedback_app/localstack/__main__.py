"""`python -m feedback_app.localstack`: `manage.py demo` without the second or two that Django needs
to load; `make demo` starts it so."""

import os
import sys
from pathlib import Path

import environ

from feedback_app.localstack.paths import FILES, HOME


def start(arguments: list[str]) -> None:
    """Replace this process by the supervisor, with the variables of `.env` in the environment.

    The supervisor is a program of its own, so that it keeps none of the modules loaded here.
    """
    if (HOME / ".env").exists():
        environ.Env.read_env(HOME / ".env")
    var = Path(os.environ.get("PROSPECT_VAR") or HOME / "var")
    os.environ["PROSPECT_VAR"] = str(var.resolve())
    os.chdir(FILES)
    os.execv(  # noqa: S606 - our own module
        sys.executable, [sys.executable, "-m", "feedback_app.localstack.supervisor", *arguments]
    )


if __name__ == "__main__":
    start(sys.argv[1:])
