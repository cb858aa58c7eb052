"""Traffic splits: assignment of versions, counting of votes, and automatic actions."""

import datetime as dt
import threading
from collections.abc import Callable

import httpx
import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, Scope, User
from feedback_app.feedback.models import Project, Source, Verdict
from feedback_app.feedback.tokens.services import token_create
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.serving.demo.conversations import turn_again, turn_begin, turn_stream, version_of
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.models import Assignment, AssignmentAnswer, Conversation, TrafficSplit
from feedback_app.serving.releases.services import release_promote
from feedback_app.serving.traffic_splits.assignments import assignment_get_or_draw, conversation_key
from feedback_app.serving.traffic_splits.report import split_report
from feedback_app.serving.traffic_splits.services import (
    SETTLE,
    split_change,
    split_start,
    split_stop,
    split_watch,
    votes_count,
)
from feedback_app.training.models import Adapter
from feedback_app.training.registry.services import adapter_discard
from feedback_app.web.errors import UserError
from tests.api.gateway_client import Program
from tests.engines import PATIENCE, RunningEngine
from tests.served import MakeAdapter
from tests.serving.traffic_splits.split_votes import vote_on

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.slow,
    pytest.mark.usefixtures("short_answers"),
]

As = Callable[[User], Client]


def loaded(engine: RunningEngine) -> set[str]:
    return set(httpx.get(f"{engine.url}/health").json()["adapters"])


@pytest.fixture
def candidate(make_adapter: MakeAdapter) -> Adapter:
    return make_adapter(2)


@pytest.fixture
def split(served: Project, candidate: Adapter, admin: User) -> TrafficSplit:
    return split_start(project=served, adapter=candidate, percent=50, by=admin)


def talk(project: Project, user: User, text: str = "Hello?") -> Conversation:
    """Create a conversation with one answer."""
    conversation = Conversation.objects.create(project=project, user=user)
    list(turn_stream(turn=turn_begin(conversation=conversation, text=text)))
    return conversation


def assignment_of(conversation: Conversation) -> Assignment:
    return Assignment.objects.get(key=conversation_key(conversation))


def all_to(*, candidate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assign new conversations to this side by replacing the random draw."""
    monkeypatch.setattr("secrets.randbelow", lambda _: 0 if candidate else 99)


def later() -> dt.datetime:
    return timezone.now() + SETTLE


# -- assignments


def test_start_loads_the_candidate_and_stop_unloads_it(
    served: Project, engine: RunningEngine, candidate: Adapter, admin: User
) -> None:
    split = split_start(project=served, adapter=candidate, percent=10, by=admin)
    assert candidate.name in loaded(engine)
    with pytest.raises(UserError, match="running already"):
        split_start(project=served, adapter=candidate, percent=20, by=admin)

    split_stop(split=split, by=admin, reason="seen enough")
    assert candidate.name not in loaded(engine)
    split.refresh_from_db()
    assert (split.status, split.reason) == ("stopped", "seen enough")
    assert split.ended_at is not None
    with pytest.raises(UserError, match="ended already"):
        split_stop(split=split, by=admin)
    actions = AuditEvent.objects.filter(actor=admin).values_list("action", "reason")
    assert list(actions) == [("split.start", ""), ("split.stopped", "seen enough")]


def test_split_with_a_candidate_that_cannot_answer_is_not_started(
    served: Project, candidate: Adapter, admin: User, settings: Settings
) -> None:
    settings.ENGINES = {served.base_model: "http://127.0.0.1:9"}
    with pytest.raises(EngineError, match="does not answer"):
        split_start(project=served, adapter=candidate, percent=10, by=admin)
    for percent in (0, 100):
        with pytest.raises(UserError, match="1 to 99"):
            split_start(project=served, adapter=candidate, percent=percent, by=admin)
    assert not TrafficSplit.objects.exists()


def test_conversation_keeps_its_side_when_the_percentage_changes(
    split: TrafficSplit, viewer: User, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = split.project
    all_to(candidate=True, monkeypatch=monkeypatch)
    first = talk(project, viewer)
    assert version_of(first) == split.candidate.name
    split_change(split=split, percent=1, auto_promote=False, auto_stop=True, by=admin)
    all_to(candidate=False, monkeypatch=monkeypatch)
    other = talk(project, viewer)
    list(turn_stream(turn=turn_begin(conversation=first, text="And then?")))

    assert [turn.completion.version for turn in first.turns.all()] == [split.candidate.name] * 2
    assert other.turns.get().completion.version == "base"
    assert (assignment_of(first).percent, assignment_of(other).percent) == (50, 1)
    # after the end of the split everyone gets the live version
    split_stop(split=split, by=admin)
    list(turn_stream(turn=turn_begin(conversation=first, text="And now?")))
    assert first.turns.last().completion.version == "base"
    assert Assignment.objects.count() == 2


def test_share_of_assignments_is_near_the_percentage(split: TrafficSplit, admin: User) -> None:
    split_change(split=split, percent=20, auto_promote=False, auto_stop=True, by=admin)
    for number in range(100):
        assignment_get_or_draw(split.project, f"chat:{number}", begins=True)
    # 20 expected, standard deviation 4: more than four of them happens once in 15,000 runs
    assert 4 <= Assignment.objects.filter(candidate=True).count() <= 36


def test_older_conversations_and_picked_versions_are_not_assigned(
    served: Project, candidate: Adapter, admin: User, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = talk(served, viewer)
    split_start(project=served, adapter=candidate, percent=50, by=admin)
    all_to(candidate=True, monkeypatch=monkeypatch)
    list(turn_stream(turn=turn_begin(conversation=old, text="And then?")))
    picked = Conversation.objects.create(project=served, user=viewer, choice="base")
    list(turn_stream(turn=turn_begin(conversation=picked, text="Hello?")))

    assert [turn.completion.version for turn in old.turns.all()] == ["base", "base"]
    assert not Assignment.objects.exists()


def test_gateway_assigns_by_user_or_first_question(
    split: TrafficSplit, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    scopes = [Scope.CHAT]
    program = Program(*token_create(project=split.project, name="Shop", scopes=scopes, by=admin))

    def ask(*said: str, **fields: object) -> str:
        messages = [
            {"role": "assistant" if number % 2 else "user", "content": text}
            for number, text in enumerate(said)
        ]
        return str(program.ask(messages=messages, **fields).json()["model"])

    all_to(candidate=True, monkeypatch=monkeypatch)
    assert ask("Hello?", user="u1") == split.candidate.name
    assert ask("Where is Rome?") == split.candidate.name
    all_to(candidate=False, monkeypatch=monkeypatch)
    assert ask("Another question?", user="u1") == split.candidate.name
    assert ask("Where is Rome?", "There.", "Why?") == split.candidate.name
    assert ask("Hello?", user="u2") == "base"
    # began before the split, or names a version: no assignment
    assert ask("Where is Oslo?", "There.", "Why?") == "base"
    assert ask("Hello?", model=split.candidate.name) == split.candidate.name
    assert Assignment.objects.count() == 3
    assert AssignmentAnswer.objects.filter(end="whole", first_seconds__isnull=False).count() == 5


# -- counting


def test_first_vote_of_a_conversation_is_counted_after_the_delay(
    split: TrafficSplit, viewer: User
) -> None:
    conversation = talk(split.project, viewer)
    list(turn_stream(turn=turn_begin(conversation=conversation, text="And then?")))
    first, second = (turn.completion for turn in conversation.turns.all())
    for answer in (first, second):
        vote_cast(completion=answer, verdict=Verdict.DOWN, by=viewer, source=Source.DEMO)
    vote_cast(completion=first, verdict=Verdict.UP, by=viewer, source=Source.DEMO)  # a correction

    assert votes_count(split=split) == 0
    assert votes_count(split=split, now=later()) == 1
    assert votes_count(split=split, now=later()) == 0
    assignment = assignment_of(conversation)
    assert (assignment.verdict, assignment.counted) == ("up", 1)
    # a counted vote stays counted if it is undone later
    vote_undo(completion=first, by=viewer, source=Source.DEMO)
    assert votes_count(split=split, now=later()) == 0
    assignment.refresh_from_db()
    assert (assignment.verdict, assignment.counted) == ("up", 1)


def test_vote_undone_in_time_is_not_counted(split: TrafficSplit, viewer: User) -> None:
    answer = talk(split.project, viewer).turns.get().completion
    vote_cast(completion=answer, verdict=Verdict.DOWN, by=viewer, source=Source.DEMO)
    vote_undo(completion=answer, by=viewer, source=Source.DEMO)
    assert votes_count(split=split, now=later()) == 0


def test_report_has_times_lengths_retries_and_stops(split: TrafficSplit, viewer: User) -> None:
    conversation = talk(split.project, viewer)
    turn = conversation.turns.get()
    list(turn_stream(turn=turn_again(turn=turn)))
    stopped = turn_stream(turn=turn_begin(conversation=conversation, text="A long story?"))
    next(stopped)
    stopped.close()  # type: ignore[attr-defined]

    sides = {side.version: side for side in split_report(split).sides}
    side = sides.pop(version_of(conversation))
    assert (side.conversations, side.answers) == (1, 3)
    assert side.asked_again == pytest.approx(1 / 3)
    assert side.left == pytest.approx(1 / 3)
    assert side.failed == 0
    assert side.first_seconds is not None
    assert side.seconds is not None
    assert 0 < side.first_seconds <= side.seconds
    assert side.words
    [other] = sides.values()
    assert (other.answers, other.seconds, other.rate) == (0, None, None)


# -- automatic actions


def test_better_candidate_goes_live_automatically(
    split: TrafficSplit, admin: User, viewer: User
) -> None:
    split_change(split=split, percent=50, auto_promote=True, auto_stop=True, by=admin)
    split.refresh_from_db()
    vote_on(split, candidate=True, verdicts="+" * 12)
    vote_on(split, candidate=False, verdicts="-" * 12)
    split_watch(split=split)
    assert split_report(split).verdict == "No difference yet"
    split_watch(split=split, now=later())

    split.refresh_from_db()
    split.project.refresh_from_db()
    assert split.project.live_version == split.candidate.name
    assert split.status == "promoted"
    assert "24 people" in split.reason
    assert split_report(split).verdict == "Candidate better"
    assert AuditEvent.objects.get(action="split.promoted").actor is None
    assert AuditEvent.objects.get(action="release").reason == split.reason


def test_worse_candidate_is_stopped_only_if_configured(
    split: TrafficSplit, engine: RunningEngine, admin: User, viewer: User
) -> None:
    split_change(split=split, percent=50, auto_promote=True, auto_stop=False, by=admin)
    split.refresh_from_db()
    vote_on(split, candidate=True, verdicts="-" * 12)
    vote_on(split, candidate=False, verdicts="+" * 12)
    split_watch(split=split, now=later())
    split.refresh_from_db()
    assert split.running
    assert split_report(split).verdict == "Worse than live"
    split.auto_stop = True
    split_watch(split=split, now=later())

    split.refresh_from_db()
    assert split.status == "worse"
    assert split_report(split).verdict == "Worse: stopped"
    assert split.candidate.name not in loaded(engine)
    assert split.project.live_version == "base"


def test_manual_release_or_discard_ends_the_split(
    split: TrafficSplit,
    engine: RunningEngine,
    make_adapter: MakeAdapter,
    admin: User,
    viewer: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    candidate = split.candidate
    release_promote(project=split.project, adapter=candidate, by=admin)
    split.refresh_from_db()
    assert split.status == "promoted"
    third, fourth = make_adapter(3), make_adapter(4)
    second = split_start(project=split.project, adapter=third, percent=50, by=admin)
    release_promote(project=split.project, adapter=fourth, by=admin)
    second.refresh_from_db()
    assert (second.status, second.reason) == ("stopped", f"{fourth.name} was released meanwhile.")
    assert not {candidate.name, third.name} & loaded(engine)

    last = split_start(project=split.project, adapter=third, percent=50, by=admin)
    all_to(candidate=True, monkeypatch=monkeypatch)
    conversation = talk(split.project, viewer)
    adapter_discard(adapter=third, by=admin)
    list(turn_stream(turn=turn_begin(conversation=conversation, text="And now?")))
    versions = [turn.completion.version for turn in conversation.turns.all()]
    assert versions == [third.name, fourth.name]
    split_watch(split=TrafficSplit.objects.select_related("candidate", "project").get(pk=last.pk))
    last.refresh_from_db()
    assert last.status == "stopped"


@pytest.mark.django_db(transaction=True)
def test_second_of_two_concurrent_splits_is_refused(
    served: Project, make_adapter: MakeAdapter, admin: User
) -> None:
    adapters = [make_adapter(1), make_adapter(2)]
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def start(adapter: Adapter) -> None:
        try:
            barrier.wait(timeout=PATIENCE)
            split_start(project=served, adapter=adapter, percent=10, by=admin)
            outcomes.append("won")
        except UserError:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=start, args=(adapter,)) for adapter in adapters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE)
    assert sorted(outcomes) == ["refused", "won"]
    assert TrafficSplit.objects.count() == 1


# -- the page


def test_split_is_started_changed_and_stopped_by_forms(
    served: Project, candidate: Adapter, admin: User, as_user: As, outsider: User, viewer: User
) -> None:
    client, page = as_user(admin), reverse("releases", args=[served.slug])
    start = reverse("split-new", args=[served.slug])
    body = {"candidate": candidate.name, "percent": "20", "auto_stop": "on"}
    assert as_user(viewer).post(start, body).status_code == 403
    assert as_user(outsider).post(start, body).status_code == 404
    refused = client.post(start, {**body, "percent": "100", "sticky": "no"}, follow=True)
    assert b"sticky" in refused.content
    assert not TrafficSplit.objects.exists()

    shown = client.post(start, body, follow=True).content.decode()
    split = TrafficSplit.objects.get()
    assert (split.percent, split.auto_promote, split.auto_stop) == (20, False, True)
    assert "No difference yet" in shown
    change = reverse("split-change", args=[served.slug, split.pk])
    client.post(change, {"percent": "30", "auto_promote": "on"})
    split.refresh_from_db()
    assert (split.percent, split.auto_promote, split.auto_stop) == (30, True, False)
    other = reverse("split-stop", args=["other", split.pk])
    assert as_user(outsider).post(other).status_code == 404
    client.post(reverse("split-stop", args=[served.slug, split.pk]))
    shown = client.get(page).content.decode()
    assert "Earlier splits (1)" in shown
    assert "Stopped manually." in shown
