"""A project with people, items and a share link: where a soak begins."""

import random
from dataclasses import dataclass
from importlib import import_module

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

from feedback_app.accounts.models import Role, Scope, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Project, Sampling, Source
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.feedback.tokens.services import token_create
from feedback_app.serving.models import ShareLink
from feedback_app.serving.share_links.services import link_create
from tests.soak.admin import Admin
from tests.soak.browser import Gate
from tests.soak.ledger import Ledger
from tests.soak.people import Annotator, Chatter, Human, Program, Visitor

MODEL = "tiny"
SLUG = "soak"
OVERLAP = 2
PROMPTS = 120
ANSWERS = 4
ANNOTATORS, CHATS, VISITORS, PROGRAMS = 16, 8, 4, 4


@dataclass(frozen=True)
class World:
    """The project, its people before they act, and its share link."""

    project: Project
    link: ShareLink
    admin: Admin
    people: list[Human]


def session_of(user: User) -> dict[str, str]:
    """Return the cookie of somebody who has signed in."""
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return {settings.SESSION_COOKIE_NAME: session.session_key}


def make_world(url: str, ledger: Ledger, gate: Gate, seed: int) -> World:
    """Fill the database and return the people, each with random numbers of their own."""
    owner = User.objects.create_user("admin@example.com", None, name="Ada")
    project = project_create(
        slug=SLUG,
        name="Soak",
        base_model=MODEL,
        owner=owner,
        overlap=OVERLAP,
        max_tokens=16,
        temperature=1.0,
        test_percent=20,
        votes_per_hour=0,
    )
    make_items(project)
    link, secret = link_create(
        project=project,
        label="soak",
        choice="live",
        days=1,
        messages_limit=100_000,
        messages_each=100,
        votes_limit=100_000,
        by=owner,
    )

    def member(name: str, role: Role) -> User:
        user = User.objects.create_user(f"{name}@example.com", None, name=name)
        member_set(project=project, user=user, role=role)
        return user

    def common(kind: str, number: int = 0) -> dict[str, object]:
        rng = random.Random(f"{seed} {kind} {number}")
        return {
            "kind": kind,
            "url": url,
            "ledger": ledger,
            "rng": rng,
            "gate": gate,
            "slug": SLUG,
        }

    people: list[Human] = []
    for number in range(ANNOTATORS):
        user = member(f"annotator{number}", Role.ANNOTATOR)
        mine = common("annotator", number)
        people.append(Annotator(**mine, cookies=session_of(user), user=user.pk))  # type: ignore[arg-type]
    for number in range(CHATS):
        user = member(f"chat{number}", Role.VIEWER)
        mine = common("chat", number)
        people.append(Chatter(**mine, cookies=session_of(user), user=user.pk))  # type: ignore[arg-type]
    people += [Visitor(**common("visitor", n), link=secret) for n in range(VISITORS)]  # type: ignore[arg-type]
    for number in range(PROGRAMS):
        _, token = token_create(
            project=project, name=f"p{number}", scopes=[Scope.CHAT, Scope.FEEDBACK], by=owner
        )
        people.append(Program(**common("program", number), token=token))  # type: ignore[arg-type]
    admin = Admin(**common("admin"), cookies=session_of(owner))  # type: ignore[arg-type]
    return World(project, link, admin, [*people, admin])


def make_items(project: Project) -> None:
    """Import prompts with several answers each."""
    sampling = Sampling.objects.create(
        project=project,
        status=Sampling.Status.DONE,
        total=PROMPTS * ANSWERS,
        done=PROMPTS * ANSWERS,
    )
    for number in range(PROMPTS):
        prompt = prompt_get_or_create(
            project=project,
            messages=[{"role": "user", "content": f"What is {number} times two?"}],
            source=Source.IMPORT,
        )
        for which in range(ANSWERS):
            answer = Answer(f"Answer {which}: {2 * number}, I think.", "base", "stop", None, None)
            completion_create(
                project=project,
                prompt=prompt,
                answer=answer,
                source=Source.IMPORT,
                sampling=sampling,
            )
