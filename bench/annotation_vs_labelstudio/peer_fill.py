"""Create a project of many tasks, people, and their sessions, in Label Studio's environment.

`python peer_fill.py TASKS PEOPLE` migrates the database named in the environment and prints the
input of the load client. Tasks are inserted by SQL: its own import does under 4,000 per second.
"""

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path

import label_studio

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(label_studio.__file__).parent), str(ROOT)]
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "core.settings.label_studio")

import django  # noqa: E402

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from organizations.models import Organization  # noqa: E402
from projects.models import Project  # noqa: E402
from tasks.models import Task  # noqa: E402
from users.models import User  # noqa: E402

from bench.filling import TEXT, insert  # noqa: E402

LABELS = (
    '<View><Text name="question" value="$question"/><Text name="answer" value="$answer"/>'
    '<Choices name="thumb" toName="answer"><Choice value="up"/><Choice value="down"/></Choices>'
    "</View>"
)


def session_of(user: User) -> str:
    """Return the key of a session in which this person is signed in."""
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session["last_login"] = time.time()
    session.save()
    return str(session.session_key)


def main() -> None:
    tasks, people = map(int, sys.argv[1:])
    call_command("migrate", verbosity=0)
    users = [
        User.objects.create_user(email=f"p{number}@example.com", password="x")
        for number in range(people)
    ]
    organization = Organization.create_organization(created_by=users[0], title="Bench")
    for user in users:
        if user is not users[0]:
            organization.add_user(user)
        user.active_organization = organization
        user.save(update_fields=["active_organization"])
    project = Project.objects.create(
        title="Bench",
        organization=organization,
        created_by=users[0],
        label_config=LABELS,
        maximum_annotations=1,
        is_published=True,
    )
    question = "How do I change my password on the tablet?"
    insert(
        Task(project=project, data={"question": question, "answer": TEXT}, overlap=1),
        count=tasks,
        varying={"id": "n", "inner_id": "n"},
    )
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT setval(pg_get_serial_sequence('task', 'id'), max(id)) FROM task")
            cursor.execute("VACUUM ANALYZE")
    print(json.dumps({"project": project.pk, "sessions": [session_of(user) for user in users]}))


main()
