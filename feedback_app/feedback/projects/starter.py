"""The starter project: prompts, guidelines and accounts to try the whole loop with."""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import transaction

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Project, Source
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.prompts.completions import sampling_request
from feedback_app.feedback.prompts.services import Message, prompts_add

STARTER = Path(__file__).resolve().parent / "starter_data"
SLUG = "starter"


@dataclass(frozen=True)
class SignIn:
    """An account's address, password and role, for printing."""

    email: str
    password: str
    role: Role


def starter_text(name: str) -> str:
    """Return one of the starter's text files."""
    return (STARTER / name).read_text().strip()


def starter_prompts(name: str = "prompts.jsonl") -> list[tuple[str, list[Message]]]:
    """Return (topic, messages) of the bundled prompts."""
    rows = map(json.loads, (STARTER / name).read_text().splitlines())
    return [(row["topic"], row["messages"]) for row in rows]


def starter_create() -> list[SignIn]:
    """Create the starter project and its accounts once; return the sign-ins each time.

    Passwords are generated once and stored next to the local database under var/.
    """
    sign_ins = [
        SignIn("admin@example.com", local_password("admin"), Role.OWNER),
        SignIn("annotator@example.com", local_password("annotator"), Role.ANNOTATOR),
    ]
    with transaction.atomic():
        people = {sign_in.role: person(sign_in) for sign_in in sign_ins}
        if Project.objects.filter(slug=SLUG).exists():
            return sign_ins
        project = project_create(
            slug=SLUG,
            name="Starter project",
            base_model=settings.BASE_MODEL,
            owner=people[Role.OWNER],
            system_prompt=starter_text("system_prompt.txt"),
            guidelines=starter_text("guidelines.md"),
        )
        member_set(project=project, user=people[Role.ANNOTATOR], role=Role.ANNOTATOR)
        prompts_add(project=project, prompts=starter_prompts(), source=Source.IMPORT)
        sampling_request(project=project, answers_per_prompt=2)
    return sign_ins


def person(sign_in: SignIn) -> User:
    """Return the account, created if missing; an existing account keeps its password."""
    user = User.objects.filter(email=sign_in.email).first()
    if user is None:
        name = sign_in.email.split("@")[0].capitalize()
        user = User.objects.create_user(sign_in.email, sign_in.password, name=name)
    return user


def local_password(name: str) -> str:
    """Return a password that is generated once and readable by its owner only."""
    path = Path(settings.VAR) / "passwords" / name
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(9))
    return path.read_text().strip()
