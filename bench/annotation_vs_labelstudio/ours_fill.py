"""Create a project of many answers, people, and their sessions: `python -m … ANSWERS PEOPLE`."""

import json
import sys

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402

from bench.filling import fill  # noqa: E402


def session_of(user: object) -> str:
    client = Client()
    client.force_login(user)  # type: ignore[arg-type]
    return client.cookies["sessionid"].value


def main() -> None:
    answers, people = map(int, sys.argv[1:])
    call_command("migrate", verbosity=0)
    world = fill(slug="bench", completions=answers, people=people)
    sessions = [session_of(user) for user in world["people"]]
    print(json.dumps({"project": "bench", "sessions": sessions}))


main()
