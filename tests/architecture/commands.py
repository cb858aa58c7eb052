"""Check a command line against the code it would run, without running it."""

from collections.abc import Sequence

import click
from celery.app.utils import find_app
from celery.bin.beat import beat
from celery.bin.control import inspect
from celery.bin.worker import worker
from django.conf import settings
from django.core.management import get_commands, load_command_class
from uvicorn.config import Config
from uvicorn.importer import import_from_string
from uvicorn.main import main as uvicorn_main

from trainer.__main__ import parser as trainer_parser

CELERY = {"worker": worker, "beat": beat, "inspect": inspect}


def check(argv: Sequence[str]) -> None:
    """Raise if the program, a module, a subcommand or a flag of this command does not exist."""
    program, *arguments = argv
    if program == "python" and arguments[:2] == ["-m", "trainer"]:
        trainer_parser().parse_args(arguments[2:])
    elif program == "python" and arguments[0] == "manage.py":
        command = load_command_class(get_commands()[arguments[1]], arguments[1])
        command.create_parser("manage.py", arguments[1]).parse_args(arguments[2:])
    elif program == "python":
        assert (settings.BASE_DIR / arguments[0]).is_file(), f"{arguments[0]} does not exist"
    elif program == "uvicorn":
        options = uvicorn_main.make_context("uvicorn", arguments).params
        assert callable(import_from_string(options["app"]))
        Config(options["app"], http=options["http"], ws=options["ws"]).load()
    elif program == "celery":
        check_celery(arguments)
    else:
        raise AssertionError(f"{program} is no program of ours")


def check_celery(arguments: Sequence[str]) -> None:
    """Check `celery -A MODULE [--skip-checks] COMMAND …`: the module has an app, and the command
    accepts these flags."""
    flag, *rest = arguments
    module = flag.removeprefix("--app=") if flag.startswith("--app=") else rest.pop(0)
    assert flag == "-A" or flag.startswith("--app="), flag
    assert find_app(module).main == "prospect"
    if rest[0] == "--skip-checks":
        del rest[0]
    command = CELERY[rest[0]]
    # parse only: converting the values would need a broker
    command.make_parser(click.Context(command)).parse_args(list(rest[1:]))
