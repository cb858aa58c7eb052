"""Create a project with answers, people, share links and tokens: `python -m … ANSWERS PEOPLE`.

PEOPLE is the number of each kind. Prints one line of JSON that people.py reads.
"""

import json
import sys

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402

from bench.filling import fill  # noqa: E402
from feedback_app.accounts.models import Scope  # noqa: E402
from feedback_app.feedback.tokens.services import token_create  # noqa: E402
from feedback_app.serving.models import Conversation  # noqa: E402
from feedback_app.serving.share_links.services import link_create  # noqa: E402

SLUG = "bench"
#: A visitor of the load test never reaches the limits of a link.
UNLIMITED = 1_000_000


def session_of(user: object) -> str:
    client = Client()
    client.force_login(user)  # type: ignore[arg-type]
    return client.cookies["sessionid"].value


def main() -> None:
    """Fill the database that the environment names."""
    answers, people = map(int, sys.argv[1:])
    # nobody signs in with a password, and hashing thousands of them takes minutes
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    call_command("migrate", verbosity=0)
    world = fill(slug=SLUG, completions=answers, people=2 * people)
    project, users = world["project"], world["people"]
    project.base_model = settings.BASE_MODEL
    project.save(update_fields=["base_model"])
    owner = project.memberships.order_by("pk").first().user
    links = [
        link_create(
            project=project,
            label=f"Link {number}",
            choice=Conversation.LIVE,
            days=1,
            messages_limit=UNLIMITED,
            messages_each=UNLIMITED,
            votes_limit=UNLIMITED,
            by=owner,
        )[1]
        for number in range(people)
    ]
    scopes = [Scope.CHAT, Scope.FEEDBACK, Scope.DATA_READ]
    tokens = [
        token_create(project=project, name=f"client {number}", scopes=scopes, by=owner)[1]
        for number in range(people)
    ]
    found = {
        "project": SLUG,
        "annotators": [session_of(user) for user in users[:people]],
        "chats": [session_of(user) for user in users[people:]],
        "links": links,
        "tokens": tokens,
    }
    print(json.dumps(found))


main()
