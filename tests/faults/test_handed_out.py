"""Fault 29: a vote, skip, undo or flag needs an item that was handed out to this person."""

import datetime as dt
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.gold.services import gold_mark
from feedback_app.feedback.models import (
    Completion,
    Example,
    Lease,
    Project,
    Skip,
    Source,
    Verdict,
    Vote,
    VoteEvent,
)
from feedback_app.feedback.queue.services import UNDO_SKIP, items_hand_out
from feedback_app.feedback.votes.rows import GRACE
from feedback_app.feedback.votes.services import vote_cast
from tests.browser.world import chat, said
from tests.conftest import MakeCompletions

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

As = Callable[[User], Client]
#: The targets of the page, of the votes that the browser kept, and of the list of the last ten.
TARGETS = ("stage", "last", "history")
ACTIONS = [
    ("vote", {"verdict": "up"}),
    ("vote", {"verdict": "down", "comment": "x"}),
    ("vote-undo", {}),
    ("skip", {}),
    ("skip", {"flag": "on"}),
]
SECRET = "My salary is 12,345 a month."


def url(name: str, completion: Completion) -> str:
    return reverse(name, args=["bot", completion.pk])


def page(target: str) -> dict[str, str]:
    return {"HX-Request": "true", "HX-Target": target}


def expire(by: User, *, ago: dt.timedelta) -> None:
    """Let the person's leases end that long ago."""
    Lease.objects.filter(user=by).update(expires_at=timezone.now() - ago)


@pytest.fixture
def foreign(project: Project, viewer: User, make_completions: MakeCompletions) -> list[Completion]:
    """Answers that nobody handed out to an annotator: in another person's chat, of an API user,
    in the queue, and in the gold set."""
    chat(project, viewer, version="base")
    private = said(project, SECRET, SECRET, version="base")
    api = said(project, "Of the API", SECRET, version="base")
    Completion.objects.filter(pk=api.pk).update(source=Source.API)
    queued, gold = make_completions(2)
    Completion.objects.filter(pk__in=[queued.pk, gold.pk]).update(text=SECRET)
    gold.text = SECRET
    gold_mark(completion=gold, verdict=Verdict.UP, why="", by=viewer)
    return [private, api, queued, gold]


@pytest.mark.parametrize("target", TARGETS)
def test_answers_that_were_not_handed_out_accept_nothing_and_are_not_shown(
    target: str, foreign: list[Completion], annotator: User, as_user: As
) -> None:
    client = as_user(annotator)
    votes, events = Vote.objects.count(), VoteEvent.objects.count()
    examples = set(Example.objects.values_list("pk", "desirable", "weight"))

    for completion in foreign:
        for name, body in ACTIONS:
            answer = client.post(url(name, completion), body, headers=page(target))
            assert answer.status_code == 404, (completion.source, name)
            assert SECRET not in answer.content.decode()
            assert client.post(url(name, completion), body).status_code == 404

    assert (Vote.objects.count(), VoteEvent.objects.count()) == (votes, events)
    assert set(Example.objects.values_list("pk", "desirable", "weight")) == examples
    assert not Skip.objects.exists()
    assert not Lease.objects.exists()
    assert not Completion.objects.filter(flagged=True).exists()
    export = b"".join(client.get(reverse("me-export")).streaming_content)  # type: ignore[attr-defined]
    assert SECRET.encode() not in export


def test_votes_of_others_cannot_be_turned_into_ties(
    voted_project: Project, second_annotator: User, as_user: As
) -> None:
    before = set(Example.objects.values_list("pk", "desirable", "weight"))
    client = as_user(second_annotator)

    for completion in Completion.objects.all():
        assert client.post(url("vote", completion), {"verdict": "down"}).status_code == 404

    assert set(Example.objects.values_list("pk", "desirable", "weight")) == before


def test_item_on_the_screen_accepts_every_action(
    project: Project, annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    for (name, body), completion in zip(ACTIONS, make_completions(len(ACTIONS)), strict=True):
        items_hand_out(project=project, by=annotator)
        answer = as_user(annotator).post(url(name, completion), body, headers=page("stage"))
        assert answer.status_code == 200, name
        Lease.objects.all().delete()


def test_late_vote_is_accepted_while_the_item_needs_one(
    project: Project, annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    first, second = make_completions(2)
    items_hand_out(project=project, by=annotator)
    client = as_user(annotator)

    expire(annotator, ago=GRACE - dt.timedelta(minutes=1))
    sent = client.post(url("vote", first), {"verdict": "up"}, headers=page("last"))
    assert (sent.status_code, Vote.objects.count()) == (204, 1)

    expire(annotator, ago=GRACE + dt.timedelta(minutes=1))
    sent = client.post(url("vote", second), {"verdict": "up"}, headers=page("last"))
    assert (sent.status_code, Vote.objects.count()) == (404, 1)


def test_late_vote_on_an_item_that_others_have_judged_is_refused(
    project: Project,
    annotator: User,
    second_annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
) -> None:
    [completion] = make_completions(1)
    items_hand_out(project=project, by=annotator)
    expire(annotator, ago=dt.timedelta(seconds=1))
    vote_cast(
        completion=completion, verdict=Verdict.UP, by=second_annotator, source=Source.ANNOTATE
    )

    late = as_user(annotator).post(url("vote", completion), {"verdict": "down"})

    assert late.status_code == 404
    assert Example.objects.get().desirable is True


def test_retried_and_changed_votes_and_skips_are_accepted(
    project: Project, annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    first, second = make_completions(2)
    items_hand_out(project=project, by=annotator)
    client = as_user(annotator)
    for _ in range(2):
        for verdict in ("up", "down"):
            answer = client.post(url("vote", first), {"verdict": verdict}, headers=page("last"))
            assert answer.status_code == 204
        assert client.post(url("skip", second), headers=page("last")).status_code == 204

    assert Vote.objects.get().verdict == "down"
    assert Skip.objects.count() == 1


def test_own_demo_vote_can_be_changed_in_the_list_of_the_last_ten(
    project: Project, annotator: User, as_user: As
) -> None:
    chat(project, annotator, version="base")
    own = Vote.objects.get()

    answer = as_user(annotator).post(
        url("vote", own.completion), {"verdict": "up"}, headers=page("history")
    )

    assert answer.status_code == 200
    own.refresh_from_db()
    assert own.verdict == "up"


def test_gold_item_accepts_a_late_vote_of_the_person_who_got_it(
    project: Project, admin: User, annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    project.gold_every = 1
    project.save()
    gold, _ = make_completions(2)
    gold_mark(completion=gold, verdict=Verdict.UP, why="", by=admin)
    while not Lease.objects.filter(completion=gold, user=annotator).exists():
        items_hand_out(project=project, by=annotator)
    expire(annotator, ago=dt.timedelta(hours=1))
    # others have judged it: gold takes no slot
    vote_cast(completion=gold, verdict=Verdict.UP, by=admin, source=Source.ANNOTATE)

    assert as_user(annotator).post(url("vote", gold), {"verdict": "up"}).status_code == 302
    assert Vote.objects.filter(user=annotator).count() == 1


def let_skips_expire() -> None:
    """Let the time pass in which a skip can be undone."""
    past = timezone.now() - UNDO_SKIP
    Skip.objects.update(created_at=past)
    Lease.objects.update(expires_at=past)
