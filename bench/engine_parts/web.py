"""The web app with the engine: all processes of one machine with a separate var/."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.engine_parts.processes import ADAPTERS, ROOT, WORK, make_adapters
from feedback_app.localstack.stack import Stack

SLUG = "bench"
#: People in the demo, each with their own conversation.
VISITORS = 8
PREPARE = f"""
import json
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from feedback_app.accounts.models import Role, Scope, User
from feedback_app.feedback.models import Project
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.tokens.services import token_create
from feedback_app.training.models import Adapter, Run, Snapshot
project = Project.objects.get(slug="bench")
admin = User.objects.get()
secret = token_create(project=project, name="bench", scopes=list(Scope), by=admin)[1]
def signed_in(user):
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return session.session_key
sessions = [signed_in(admin)]
for number in range({VISITORS}):
    user = User.objects.create_user(f"visitor{{number}}@example.org", "x")
    member_set(project=project, user=user, role=Role.VIEWER)
    sessions.append(signed_in(user))
for number, name in enumerate({ADAPTERS}, 1):
    snapshot = Snapshot.objects.create(
        project=project, train_up=1, train_down=1, test_up=1, test_down=1
    )
    run = Run.objects.create(
        project=project, number=number, snapshot=snapshot, trigger=Run.Trigger.PERSON,
        status=Run.Status.SUCCEEDED,
    )
    Adapter.objects.create(
        project=project, run=run, name=name, path=f"adapters/{{name}}", sha256="0" * 64,
        gate_won=True, gate={{"rules": [], "won": True}},
    )
print(json.dumps([secret, sessions]))
"""


@dataclass(frozen=True)
class Web:
    """URLs of the web app and its engine, a token's header for the gateway, and the sessions of the
    admin and of people who use the demo."""

    url: str
    engine_url: str
    model: str
    slug: str
    headers: dict[str, str]
    admin: str
    sessions: list[str]


@contextmanager
def web(model: str, engine_url: str | None = None) -> Iterator[Web]:
    """Run Valkey, web, engine, workers and beat, with one project on the base model and three
    versions of it. With `engine_url` a running engine is used instead."""
    var = WORK / "web"
    shutil.rmtree(var, ignore_errors=True)
    name = Path(model).name
    (var / "models").mkdir(parents=True)
    (var / "models" / name).symlink_to(Path(model).resolve())
    shutil.copytree(make_adapters(model) / "adapters", var / "artifacts" / "adapters")
    env = {
        "PROSPECT_ENV": "demo",
        "PROSPECT_VAR": str(var),
        "BASE_MODEL": name,
        "API_REQUESTS_PER_MINUTE": "100000",
        "ANSWERS_PER_PERSON": "1000",
        "ANSWERS_PER_TOKEN": "1000",
        "DATABASE_URL": None,
        "REDIS_URL": None,
        "ENGINE_URL": engine_url,
        "ENGINES": None,
    }
    merged = {key: value for key, value in {**os.environ, **env}.items() if value is not None}

    def manage(*words: str) -> str:
        command = [sys.executable, str(ROOT / "manage.py"), *words]
        done = subprocess.run(
            command, cwd=ROOT, env=merged, check=True, capture_output=True, text=True
        )
        return done.stdout

    manage("migrate", "--verbosity", "0")
    manage("collectstatic", "--noinput", "--verbosity", "0")
    person = ["--email", "bench@example.org"]
    manage("createsuperuser", "--noinput", *person)
    manage("create_project", SLUG)
    secret, (admin, *sessions) = json.loads(
        manage("shell", "--no-imports", "-c", PREPARE).splitlines()[-1]
    )
    with Stack(env=env) as stack:
        httpx.get(f"{stack.url}/health", timeout=10).raise_for_status()
        headers = {"Authorization": f"Bearer {secret}"}
        yield Web(stack.url, stack.engine_url, name, SLUG, headers, admin, sessions)
