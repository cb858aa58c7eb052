"""The `prospect` command of an installed wheel: `prospect demo`, `prospect manage …`."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

USAGE = """\
usage: prospect demo [--port PORT] [--verbose]   run everything on this machine, until Ctrl-C
       prospect manage COMMAND …                 Django's commands: `prospect manage help`
       prospect --version

Data is kept in ./var, or in the directory that PROSPECT_VAR names."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    match list(sys.argv[1:] if argv is None else argv):
        case ["--version"]:
            print(f"prospect {version('prospect')}")
            return 0
        case ["demo", *arguments]:
            return _manage(["demo", *arguments])
        case ["manage", *arguments]:
            return _manage(arguments)
        case [] | ["help" | "-h" | "--help"]:
            print(USAGE)
            return 0
        case [unknown, *_]:
            print(f"prospect: unknown command {unknown!r}\n{USAGE}", file=sys.stderr)
            return 2
        case _:
            raise AssertionError("a list has a first item or none")


def _manage(arguments: Sequence[str]) -> int:
    """Run a Django command. Django is imported here: `--version` does not need it."""
    from django.core.management import execute_from_command_line

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "feedback_app.config.settings")
    execute_from_command_line(["prospect manage", *arguments])
    return 0
