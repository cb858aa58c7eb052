"""People, a project and answers to vote on: the smallest valid setup."""

from collections.abc import Callable, Iterable

import hypothesis
import pytest
from django.core.cache import cache
from django.db import transaction
from django.test import Client

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.examples.services import examples_refresh
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import (
    Completion,
    Project,
    Prompt,
    Sampling,
    Source,
    Verdict,
    Vote,
    VoteEvent,
    projects,
)
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.prompts.completions import Answer, completion_new
from feedback_app.feedback.prompts.services import Message, content_hash, split_of
from feedback_app.feedback.queue.services import lease_take

# with a deadline an example would test the machine's load
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

pytest_plugins = ["tests.stacks", "tests.served", "tests.s3"]
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def no_memory() -> None:
    """Clear process-local caches: ids are reused in the next test."""
    cache.clear()


@pytest.fixture(autouse=True)
def fixed_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the splits of prompts from a fixed key, so that every run of the suite has the same."""
    monkeypatch.setattr(projects, "token_hex", lambda size: "0" * 2 * size)


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_user("admin@example.com", PASSWORD, name="Ada Admin")


@pytest.fixture
def project(admin: User) -> Project:
    created = project_create(
        slug="bot",
        name="Support bot",
        base_model="SmolLM2-135M-Instruct",
        owner=admin,
        system_prompt="Be brief.",
        guidelines="**Short** and honest.",
    )
    # With a random key one in a hundred samples of sixty votes has no up in the test split. With
    # this one, `voted_project` has twelve test examples: four ups and eight downs.
    created.split_key = "q" * 64
    created.save(update_fields=["split_key"])
    return created


@pytest.fixture
def annotator(project: Project) -> User:
    user = User.objects.create_user("ann@example.com", PASSWORD, name="Ann Otator")
    member_set(project=project, user=user, role=Role.ANNOTATOR)
    return user


@pytest.fixture
def second_annotator(project: Project) -> User:
    user = User.objects.create_user("bob@example.com", PASSWORD, name="Bob")
    member_set(project=project, user=user, role=Role.ANNOTATOR)
    return user


@pytest.fixture
def viewer(project: Project) -> User:
    user = User.objects.create_user("vic@example.com", PASSWORD, name="Vic Viewer")
    member_set(project=project, user=user, role=Role.VIEWER)
    return user


@pytest.fixture
def outsider(db: None) -> User:
    """A person with an account and their own project, and no access to `project`."""
    user = User.objects.create_user("eve@example.com", PASSWORD)
    project_create(slug="other", name="Other", base_model="SmolLM2-135M-Instruct", owner=user)
    return user


@pytest.fixture
def as_user() -> Callable[[User], Client]:
    """Return a function that returns a client signed in as this person."""

    def sign_in(user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return sign_in


MakeCompletions = Callable[..., list[Completion]]


def prompts_make(project: Project, texts: Iterable[str]) -> list[Prompt]:
    """Return imported prompts with these texts, those that are new stored at once."""
    wanted = [[Message(role="user", content=text)] for text in texts]
    digests = [content_hash(messages) for messages in wanted]
    known = set(
        project.prompts.filter(content_hash__in=digests).values_list("content_hash", flat=True)
    )
    Prompt.objects.bulk_create(
        Prompt(
            project=project,
            content_hash=digest,
            messages=messages,
            source=Source.IMPORT,
            split=split_of(digest, project=project),
        )
        for digest, messages in zip(digests, wanted, strict=True)
        if digest not in known
    )
    found = {p.content_hash: p for p in project.prompts.filter(content_hash__in=digests)}
    return [found[digest] for digest in digests]


def hand_out(by: User, *completions: Completion) -> None:
    """Lease these items to a person, as if they were on their screen."""
    for completion in completions:
        lease_take(completion=completion, by=by)


@pytest.fixture
def make_completions(project: Project) -> MakeCompletions:
    """`make_completions(5)`: this many sampled answers in the queue, each for its own prompt."""

    def make(count: int = 1, *, queued: bool = True, of: Project = project) -> list[Completion]:
        sampling = Sampling.objects.create(
            project=of, status=Sampling.Status.DONE, total=count, done=count
        )
        start = of.prompts.count()
        texts = {n: f"Question number {n}?" for n in range(start, start + count)}
        prompts = prompts_make(of, texts.values())
        # stored at once, as many tests begin with them
        return Completion.objects.bulk_create(
            completion_new(
                project=of,
                prompt=prompt,
                answer=Answer(
                    text=f"Answer number {number}.",
                    version="base",
                    finish_reason="stop",
                    prompt_token_ids=None,
                    token_ids=None,
                ),
                source=Source.IMPORT,
                sampling=sampling if queued else None,
            )
            for number, prompt in zip(texts, prompts, strict=True)
        )

    return make


@pytest.fixture
def voted_project(project: Project, annotator: User, make_completions: MakeCompletions) -> Project:
    """Sixty answers, every third one with an up vote: enough for a run."""
    completions = make_completions(60)
    # stored at once, as many tests begin with them
    votes = [
        Vote(
            completion=completion,
            project=project,
            user=annotator,
            verdict=Verdict.DOWN if number % 3 else Verdict.UP,
            source=Source.ANNOTATE,
            guidelines_number=project.guidelines_number,
        )
        for number, completion in enumerate(completions)
    ]
    shared = ("completion", "user", "verdict", "source", "guidelines_number")
    with transaction.atomic():
        Vote.objects.bulk_create(votes)
        VoteEvent.objects.bulk_create(
            VoteEvent(**{name: getattr(vote, name) for name in shared}) for vote in votes
        )
        examples_refresh(completion.pk for completion in completions)
    return project
