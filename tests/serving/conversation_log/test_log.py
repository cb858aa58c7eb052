"""The log of conversations: who sees it, its filters, and what can be done with an answer."""

import csv
import datetime as dt
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import ApiPerson, AuditEvent, User
from feedback_app.feedback.gold.services import gold_mark
from feedback_app.feedback.models import Completion, Project, Skip, Verdict
from feedback_app.serving.conversation_log import listing
from feedback_app.serving.models import Conversation, Turn
from feedback_app.serving.share_links.services import link_create, visitor_create
from tests.serving.conversation_log.world import age, answer, talk, thumb

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]
HOSTILE = "<script>alert(1)</script> =cmd"


def log(project: Project, query: str = "") -> str:
    return reverse("conversation-log", args=[project.slug]) + query


def one(conversation: Conversation) -> str:
    return reverse("logged-conversation", args=[conversation.project.slug, conversation.pk])


def act(conversation: Conversation, what: str, turn: Turn | None = None) -> str:
    turn = turn or conversation.turns.get(position=0)
    args = [conversation.project.slug, conversation.pk, turn.pk]
    return reverse(f"logged-answer-{what}", args=args)


@pytest.fixture
def visitor(project: Project, admin: User) -> User:
    link, _ = link_create(
        project=project, label="Board", choice="live", days=7, messages_limit=9,
        messages_each=9, votes_limit=9, by=admin,
    )  # fmt: skip
    return visitor_create(link).user


@pytest.fixture
def end_user(project: Project) -> User:
    user = User.objects.create_service(name="customer-7")
    ApiPerson.objects.create(project=project, name="customer-7", user=user)
    return user


@pytest.fixture
def three(
    project: Project, viewer: User, visitor: User, end_user: User
) -> tuple[Conversation, Conversation, Conversation]:
    """A conversation of a member, of a visitor and of a product's user, the newest first."""
    demo = talk(project, viewer, "Where is Oslo?", version="bot@2")
    link = talk(project, visitor, "Who is Ada?")
    gateway = talk(project, end_user, "My order?")
    thumb(demo, "up")
    thumb(link, "down")
    for days, conversation in enumerate((demo, link, gateway), start=1):
        age(conversation, days=days)
    return demo, link, gateway


def titles(client: Client, project: Project, query: str = "") -> list[str]:
    return [str(row.conversation) for row in client.get(log(project, query)).context["rows"]]


@pytest.mark.usefixtures("three")
def test_log_lists_every_source_newest_first(project: Project, admin: User, as_user: As) -> None:
    page = as_user(admin).get(log(project))
    rows = page.context["rows"]

    assert [str(row.conversation) for row in rows] == ["Where is Oslo?", "Who is Ada?", "My order?"]
    assert [row.source for row in rows] == ["Demo", "Share link “Board”", "Gateway"]
    assert [(row.ups, row.downs) for row in rows] == [(1, 0), (0, 1), (0, 0)]
    assert rows[0].versions == ["bot@2"]
    assert "customer-7" in page.content.decode()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?version=bot@2", ["Where is Oslo?"]),
        ("?version=bot@9", []),
        ("?verdict=up", ["Where is Oslo?"]),
        ("?verdict=down", ["Who is Ada?"]),
        ("?verdict=none", ["My order?"]),
        ("?source=demo", ["Where is Oslo?"]),
        ("?source=link", ["Who is Ada?"]),
        ("?source=gateway", ["My order?"]),
        ("?text=about+my+ORDER", ["My order?"]),
        ("?text=%25", []),
        ("?verdict=up&source=link", []),
    ],
)
@pytest.mark.usefixtures("three")
def test_filter_narrows_the_list(
    query: str, found: list[str], project: Project, admin: User, as_user: As
) -> None:
    assert titles(as_user(admin), project, query) == found


def test_filter_by_person_and_days(
    three: tuple[Conversation, ...], project: Project, admin: User, as_user: As
) -> None:
    client, demo = as_user(admin), three[0]
    before = (timezone.now() - dt.timedelta(days=1)).astimezone(dt.UTC).date()
    two_before = before - dt.timedelta(days=1)

    assert titles(client, project, f"?person={demo.user_id}") == ["Where is Oslo?"]
    assert titles(client, project, f"?first={before}") == ["Where is Oslo?"]
    assert titles(client, project, f"?last={two_before}") == ["Who is Ada?", "My order?"]


@pytest.mark.parametrize(
    "query",
    [
        "?owner__password=x", "?verdict=sideways", "?source=mars", "?person=me", "?first=today",
        "?last=9999-12-31",
        "?text=" + "x" * 201, "?text=%00", "?version=%00",
    ],
)  # fmt: skip
def test_unknown_parameters_and_values_are_refused(
    query: str, project: Project, admin: User, as_user: As
) -> None:
    assert as_user(admin).get(log(project, query)).status_code == 400


def test_filters_look_through_the_newest_ones_only(
    project: Project, viewer: User, admin: User, as_user: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "WINDOW", 2)
    for days in range(4):
        age(talk(project, viewer, f"Question {days}?"), days=days)

    assert titles(as_user(admin), project, "?source=demo") == ["Question 0?", "Question 1?"]
    assert len(titles(as_user(admin), project)) == 4


def test_members_below_admin_and_outsiders_read_nothing(
    three: tuple[Conversation, ...],
    project: Project,
    annotator: User,
    viewer: User,
    outsider: User,
    as_user: As,
) -> None:
    _, link, _ = three
    pages = [log(project), one(link), log(project, "export/?format=csv")]
    actions = [act(link, "flag"), act(link, "queue")]

    for person, status in ((annotator, 403), (viewer, 403), (outsider, 404)):
        client = as_user(person)
        assert {client.get(page).status_code for page in pages} == {status}
        assert {client.post(action).status_code for action in actions} == {status}
    assert not Completion.objects.filter(flagged=True).exists()
    assert not Completion.objects.filter(queued=True).exists()


def test_conversation_of_another_project_is_404(
    three: tuple[Conversation, ...], outsider: User, as_user: As
) -> None:
    demo, client = three[0], as_user(outsider)
    turn = demo.turns.get()

    assert client.get(reverse("logged-conversation", args=["other", demo.pk])).status_code == 404
    for what in ("flag", "queue"):
        target = reverse(f"logged-answer-{what}", args=["other", demo.pk, turn.pk])
        assert client.post(target).status_code == 404


def test_turn_of_another_conversation_is_404(
    three: tuple[Conversation, ...], admin: User, as_user: As
) -> None:
    demo, link, _ = three

    assert as_user(admin).post(act(demo, "flag", link.turns.get())).status_code == 404


def test_opened_conversation_shows_all_branches_votes_and_versions(
    project: Project, viewer: User, admin: User, as_user: As
) -> None:
    chat = talk(project, viewer, "Where is Oslo?", "And Bergen?")
    Turn.objects.create(
        conversation=chat,
        parent=chat.turns.get(position=0),
        user_message="And Turku?",
        completion=answer(project, "And Turku?", "Not in Norway", "bot@3"),
    )
    thumb(chat, "down")

    page = as_user(admin).get(one(chat)).content.decode()

    assert all(text in page for text in ("And Bergen?", "And Turku?", "Not in Norway", "bot@3"))
    assert "1 turn on other branches" in page
    assert "Vic Viewer" in page


def test_hostile_text_is_shown_as_text(
    project: Project, viewer: User, admin: User, as_user: As
) -> None:
    chat = talk(project, viewer, HOSTILE)
    Completion.objects.update(text=f"{HOSTILE} [x](javascript:alert(1))")

    for target in (log(project), log(project, "?text=<script>"), one(chat)):
        page = as_user(admin).get(target).content.decode()
        assert "<script>alert" not in page
        assert "javascript:alert" not in page.replace("(javascript:alert(1))", "")
        assert "&lt;script&gt;" in page


def test_queries_do_not_grow_with_conversations_and_turns(
    project: Project, viewer: User, admin: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    client = as_user(admin)
    for number in range(8):
        thumb(talk(project, viewer, *[f"{number} {n}?" for n in range(4)]), "up")

    with django_assert_max_num_queries(12):
        client.get(log(project, "?verdict=up"))
    with django_assert_max_num_queries(10):
        client.get(one(Conversation.objects.all()[0]))


def test_empty_and_removed_conversations_are_left_out(
    project: Project, viewer: User, admin: User, as_user: As
) -> None:
    Conversation.objects.create(project=project, user=viewer, title="Opened only")
    gone = talk(project, viewer, "Gone?", removed_at=timezone.now())

    assert titles(as_user(admin), project) == []
    assert as_user(admin).get(one(gone)).status_code == 404


# -- flag and queue


def test_answer_is_sent_to_the_annotators_once(
    three: tuple[Conversation, ...], admin: User, annotator: User, as_user: As
) -> None:
    gateway, client = three[2], as_user(admin)

    for _ in range(2):
        assert client.post(act(gateway, "queue")).status_code == 302

    completion = Completion.objects.get(turns__conversation=gateway)
    assert completion.queued
    assert AuditEvent.objects.filter(action="conversation.queue").count() == 1
    page = as_user(annotator).get(reverse("annotate", args=[gateway.project.slug]))
    assert "About My order?" in page.content.decode()


def test_answers_that_nobody_should_judge_are_not_queued(
    three: tuple[Conversation, ...], project: Project, viewer: User, admin: User, as_user: As
) -> None:
    judged, client = three[0], as_user(admin)
    flagged, empty, gold = (talk(project, viewer, text) for text in ("A?", "B?", "C?"))
    Completion.objects.filter(turns__conversation=flagged).update(flagged=True)
    Completion.objects.filter(turns__conversation=empty).update(text=" ")
    gold_mark(
        completion=Completion.objects.get(turns__conversation=gold),
        verdict=Verdict.UP,
        why="",
        by=admin,
    )

    for conversation, why in (
        (judged, "as many votes"), (flagged, "flagged"), (empty, "empty"), (gold, "gold"),
    ):  # fmt: skip
        page = client.post(act(conversation, "queue"), follow=True).content.decode()
        assert why in page
    assert not Completion.objects.filter(queued=True).exists()


def test_flagged_answer_is_on_the_flags_page(
    three: tuple[Conversation, ...], project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)

    for _ in range(2):
        client.post(act(three[1], "flag"), {"reason": "Rude."})

    assert Skip.objects.get().reason == "Rude."
    assert "Rude." in client.get(reverse("flags", args=[project.slug])).content.decode()
    assert AuditEvent.objects.get(action="conversation.flag").reason == "Rude."


# -- export


def exported(client: Client, project: Project, query: str) -> str:
    answer = client.get(reverse("conversation-log-export", args=[project.slug]) + query)
    assert answer.status_code == 200
    return b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("three")
def test_export_has_a_row_per_turn_of_the_filter(
    project: Project, viewer: User, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    talk(project, viewer, "One?", "Two?")

    rows = [json.loads(line) for line in exported(client, project, "?format=jsonl").splitlines()]
    few = exported(client, project, "?format=jsonl&source=link").splitlines()

    assert sorted(row["question"] for row in rows) == [
        "My order?", "One?", "Two?", "Where is Oslo?", "Who is Ada?",
    ]  # fmt: skip
    assert {row["source"] for row in rows} == {"demo", "link", "gateway"}
    assert json.loads(few[0]) | {"downs": 1, "version": "base"} == json.loads(few[0])
    assert len(few) == 1
    assert viewer.email not in str(rows)
    assert "customer-7" not in str(rows)
    exported(client, project, "?format=csv&source=demo&text=Oslo")
    recorded = AuditEvent.objects.filter(action="conversations.export").order_by("pk")
    assert list(recorded.values_list("target", flat=True)) == [
        "jsonl", "jsonl source=link", "csv source=demo&text=%2A",
    ]  # fmt: skip


def test_csv_export_neutralises_formulas(
    project: Project, viewer: User, admin: User, as_user: As
) -> None:
    talk(project, viewer, "=cmd|' /C calc'!A0")

    rows = list(csv.DictReader(io.StringIO(exported(as_user(admin), project, "?format=csv"))))

    assert rows[0]["question"].startswith("'=cmd")
