"""A project with one row of every kind, each with a word in its texts by which it is recognised."""

from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db import connection, models
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import ApiPerson, Role, Scope, User
from feedback_app.accounts.sealing import seal
from feedback_app.feedback.adjudication.services import adjudication_request
from feedback_app.feedback.gold.services import gold_mark
from feedback_app.feedback.members.services import invitation_create, member_set
from feedback_app.feedback.models import (
    Completion,
    GoldAnswer,
    ImportJob,
    ImportRefusal,
    Pause,
    Probe,
    Project,
    Sampling,
    Source,
    Verdict,
    Webhook,
    WebhookDelivery,
)
from feedback_app.feedback.probes.services import probe_add
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.feedback.tokens.services import token_create
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.serving.models import (
    ChangeReport,
    Comparison,
    Conversation,
    Release,
    TrafficSplit,
    Turn,
)
from feedback_app.serving.share_links.services import link_create, visitor_create
from feedback_app.training.gate.people.counts import PairCounts
from feedback_app.training.models import (
    Adapter,
    BlindPair,
    InfluenceReport,
    Judge,
    PairBatch,
    PairVote,
    Run,
    RunMetric,
    RunNote,
    Snapshot,
    Sweep,
    VersionPush,
)
from feedback_app.training.runs.config import RunConfig

#: Sessions change with every request; the others are Django's own, with hundreds of ids.
LEFT_OUT = {"django_session", "auth_permission", "django_content_type", "django_migrations"}


@dataclass
class World:
    """A project, its people by role, and the values that URLs of its objects contain."""

    project: Project
    #: in every text of the project's rows
    word: str
    #: in the conversations and comparisons of one member
    private: str
    people: dict[str, User]
    #: secret of a share link, and one of its visitors
    link: str = ""
    visitor: Any = None
    invitation: str = ""
    tokens: dict[Scope, str] = field(default_factory=dict)
    values: dict[str, list[Any]] = field(default_factory=dict)


def make_world(slug: str) -> World:
    """Return a project with members of every role and an object of every kind."""
    word, private = f"zq{slug}word", f"zq{slug}private"
    people = {
        role.value: User.objects.create_user(f"{word}-{role.value}@example.com", "x", name=word)
        for role in Role
    }
    owner, annotator = people["owner"], people["annotator"]
    project = project_create(
        slug=slug,
        name=f"Name {word}",
        base_model="SmolLM2-135M-Instruct",
        owner=owner,
        system_prompt=word,
        guidelines=word,
    )
    for role in (Role.ADMIN, Role.ANNOTATOR, Role.VIEWER):
        member_set(project=project, user=people[role.value], role=role)
    world = World(project, word, private, people)
    sampling = Sampling.objects.create(
        project=project, status=Sampling.Status.DONE, total=3, done=3
    )
    queued = [answer_to(project, f"{word} {n}", Source.SAMPLED, sampling) for n in range(3)]
    vote_cast(completion=queued[0], verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    adjudication_request(completion=queued[0], why=word, by=people["admin"])
    gold = gold_mark(completion=queued[1], verdict=Verdict.UP, why=word, by=people["admin"])
    GoldAnswer.objects.create(
        item=gold, user=annotator, project=project, verdict=Verdict.UP, right=True
    )
    Pause.objects.create(
        project=project, user=annotator, right=1, of=2, lifted_at=timezone.now(), lifted_by=owner
    )
    question = [{"role": "user", "content": word}]
    probe_add(
        project=project, messages=question, kind=Probe.Kind.CONTAINS, pattern=word, note=word,
        by=owner, completion=queued[0],
    )  # fmt: skip
    job = ImportJob.objects.create(
        project=project, by=owner, name=f"{word}.jsonl", path="", uploaded=False,
        status=ImportJob.Status.DONE,
    )  # fmt: skip
    ImportRefusal.objects.create(job=job, number=1, reason=word, excerpt=word)
    hook = Webhook.objects.create(
        project=project, url=f"https://{word}.example.com/", secret="x", created_by=owner
    )
    WebhookDelivery.objects.create(webhook=hook, event="run.succeeded", key=word, body=word)
    Judge.objects.create(
        project=project, url=f"https://{word}.invalid/v1", model=word, api_key=seal(word),
        saved_by=owner,
    )  # fmt: skip
    membership = project.memberships.get(user=owner)
    _, world.invitation = invitation_create(role=Role.VIEWER, days=7, max_uses=5, actor=membership)
    for scope in Scope:
        _, world.tokens[scope] = token_create(
            project=project, name=f"{word} {scope.value}", scopes=[scope], by=owner
        )
    end_user = User.objects.create_service(name=word)
    ApiPerson.objects.create(project=project, name=word, user=end_user)
    make_versions(world)
    make_conversations(world)
    audit(project=project, actor=owner, action="project.change", target=word)
    world.values = {
        "slug": [slug],
        "name": [adapter.name for adapter in project.adapters.all()],
        "number": list(project.runs.values_list("number", flat=True)),
        "turn": list(Turn.objects.values_list("pk", flat=True)),
        "delivery": list(WebhookDelivery.objects.values_list("pk", flat=True)),
        "side": ["left"],
        "table": ["votes", "agreement", "rates"],
        "uuid": [
            *project.conversations.values_list("pk", flat=True),
            *project.comparisons.values_list("pk", flat=True),
        ],
    }
    return world


def answer_to(
    project: Project, question: str, source: str, sampling: Sampling | None = None
) -> Completion:
    answer = Answer(
        text=f"Answer to {question}",
        version="base",
        finish_reason="stop",
        prompt_token_ids=None,
        token_ids=None,
    )
    prompt = prompt_get_or_create(
        project=project, messages=[{"role": "user", "content": question}], source=source
    )
    return completion_create(
        project=project, prompt=prompt, answer=answer, source=source, sampling=sampling
    )


def make_versions(world: World) -> None:
    project, owner = world.project, world.people["owner"]
    for number in (1, 2):
        snapshot = Snapshot.objects.create(
            project=project, train_up=1, train_down=1, test_up=1, test_down=1
        )
        run = Run.objects.create(
            project=project,
            number=number,
            snapshot=snapshot,
            trigger=Run.Trigger.PERSON,
            requested_by=owner,
            status=Run.Status.SUCCEEDED,
            config=RunConfig().as_json(),
            error=world.word,
        )
        RunNote.objects.create(run=run, text=world.word)
        RunMetric.objects.create(
            run=run, step=1, loss=0.5, kl=0.0, kl_unclamped=0.0, learning_rate=1e-4,
            grad_norm=1.0, seconds=1.0,
        )  # fmt: skip
        adapter = Adapter.objects.create(
            project=project,
            run=run,
            name=project.adapter_name(number),
            path=f"adapters/{world.word}-{number}",
            sha256="0" * 64,
            gate={"rules": [], "outcome": "passed"},
            gate_outcome="passed",
            gate_won=True,
        )
        ChangeReport.objects.create(adapter=adapter, previous="base", conditions="x")
        VersionPush.objects.create(
            adapter=adapter,
            destination=f"s3://models/{world.word}",
            status="done" if number == 1 else "queued",
        )
        InfluenceReport.objects.create(
            adapter=adapter,
            status="done" if number == 1 else "queued",
            result={
                "points": ["step 1"],
                "validation_examples": 8,
                "measured": 1,
                "examples": 1,
                "groups": {
                    kind: [{"key": key, "votes": 1, "examples": 1, "estimate": 0.1, "run": number}]
                    for kind, key in (
                        ("person", str(owner.pk)),
                        ("topic", world.word),
                        ("source", "annotate"),
                        ("week", "2026-W48"),
                    )
                },
            },
        )
        make_pairs(world, adapter, end="judged" if number == 1 else "")
    make_sweep(world, snapshot)
    Release.objects.filter(project=project).update(live=False, until=timezone.now())
    Release.objects.create(project=project, released_by=owner, reason=world.word)
    TrafficSplit.objects.create(
        project=project,
        candidate=project.adapters.last(),
        live_version="base",
        percent=10,
        started_by=owner,
        status=TrafficSplit.Status.STOPPED,
        ended_at=timezone.now(),
        reason=world.word,
    )


def make_sweep(world: World, snapshot: Snapshot) -> None:
    """A sweep that has ended, with one trial."""
    project, owner = world.project, world.people["owner"]
    sweep = Sweep.objects.create(
        project=project, number=1, snapshot=snapshot, method="grid", space={"epochs": [1, 2]},
        max_hours=1, forecast={"minutes": 5.0, "cost": None}, requested_by=owner,
        ended_at=timezone.now(),
    )  # fmt: skip
    Run.objects.create(
        project=project, number=3, snapshot=snapshot, sweep=sweep, evaluates=False,
        trigger=Run.Trigger.SWEEP, requested_by=owner, status=Run.Status.TRAINED,
        config=RunConfig().as_json(), probes=[[1, 0.5, 0.5]], error=world.word,
    )  # fmt: skip


def make_pairs(world: World, adapter: Adapter, *, end: str) -> None:
    """Two blind pairs, one of them judged by the owner, in a batch that is open or has ended."""
    batch = PairBatch.objects.create(
        adapter=adapter,
        project=adapter.project,
        end=end,
        ended_at=timezone.now() if end else None,
        decided_at=timezone.now() if end else None,
        counts=PairCounts(2, 0, judged=1, wins=1.0, end=end).as_json() if end else {},
    )
    for position in range(2):
        pair = BlindPair.objects.create(
            batch=batch,
            position=position,
            prompt=world.project.prompts.order_by("pk")[position],
            messages=[{"role": "user", "content": world.word}],
            candidate_text=f"{world.word} new",
            live_text=f"{world.word} old",
        )
    PairVote.objects.create(pair=pair, user=world.people["owner"], choice="candidate", side="left")


def make_conversations(world: World) -> None:
    """Conversations of a viewer and of a visitor, and a comparison of the viewer."""
    project, owner = world.project, world.people["owner"]
    link, world.link = link_create(
        project=project, label=world.word, choice="live", days=7, messages_limit=9,
        messages_each=9, votes_limit=9, by=owner,
    )  # fmt: skip
    world.visitor = visitor_create(link)
    for user in (world.people["viewer"], world.visitor.user):
        conversation = Conversation.objects.create(project=project, user=user, title=world.private)
        Turn.objects.create(
            conversation=conversation,
            position=0,
            user_message=world.private,
            completion=answer_to(project, f"{world.private} {user.pk}", Source.DEMO),
        )
    sides = [answer_to(project, f"{world.private} {side}", Source.DEMO) for side in "ab"]
    Comparison.objects.create(
        project=project, user=world.people["viewer"], question=world.private,
        left_version="base", right_version="base", left=sides[0], right=sides[1],
    )  # fmt: skip


Rows = dict[str, dict[Any, tuple[Any, ...]]]


def all_rows() -> Rows:
    """Return every row of the database, by table and primary key."""
    found: Rows = {}
    for model in apps.get_models(include_auto_created=True):
        if not model._meta.managed or model._meta.db_table in LEFT_OUT:
            continue
        pk = model._meta.pk.attname
        names = [f.attname for f in model._meta.concrete_fields]
        rows = model._base_manager.values_list(pk, *names)
        found[model._meta.db_table] = {row[0]: row[1:] for row in rows}
    return found


def changed(before: Rows) -> list[str]:
    """Name the rows of `before` that are gone or differ now."""
    now = all_rows()
    return [
        f"{table} {pk}: {row} is now {now[table].get(pk)}"
        for table, rows in before.items()
        for pk, row in rows.items()
        if now[table].get(pk) != row
    ]


def ids_of(rows: Rows) -> list[int]:
    """Return every number that is a primary key of some row."""
    return sorted({pk for table in rows.values() for pk in table if isinstance(pk, int)})


def move_ids(by: int) -> None:
    """Let the next rows of every table begin `by` higher, so that ids of two worlds differ."""
    for model in apps.get_models(include_auto_created=True):
        pk = model._meta.pk
        if not isinstance(pk, models.AutoField) or not model._meta.managed:
            continue
        table, column = model._meta.db_table, pk.column
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute(
                    "SELECT setval(pg_get_serial_sequence(%s, %s), %s)", [table, column, by]
                )
            else:
                cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])
                cursor.execute("INSERT INTO sqlite_sequence VALUES (%s, %s)", [table, by])
