"""Fault 33: a gold item cannot be told from other items by filters, counters, exports or undo."""

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
    GoldAnswer,
    Lease,
    Project,
    Prompt,
    Verdict,
    Vote,
)
from feedback_app.feedback.queue.services import items_hand_out
from tests.browser.world import chat
from tests.conftest import MakeCompletions, hand_out
from tests.faults.test_handed_out import let_skips_expire

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

As = Callable[[User], Client]
DESK = {"HX-Request": "true", "HX-Target": "stage"}


def url(name: str, *args: int) -> str:
    return reverse(name, args=["bot", *args])


def shown(page: str) -> int | None:
    """Return the completion on the screen, not the one behind it."""
    found = page.split("<template")[0].partition('data-completion="')[2].partition('"')[0]
    return int(found) if found else None


def left(page: str) -> str:
    """Return the counter of remaining items."""
    return (
        " ".join(page.split('class="today"')[1].split("</span>")[0].split()).split("· ")[1].strip()
    )


@pytest.fixture
def gold(project: Project, admin: User, make_completions: MakeCompletions) -> list[Completion]:
    """Three gold items of an imported file; the queue has answers of the base model only."""
    project.gold_every = 1
    project.save()
    items = make_completions(3)
    Completion.objects.update(version="import", queued=False)
    for item in items:
        gold_mark(completion=item, verdict=Verdict.UP, why="", by=admin)
    return items


@pytest.mark.parametrize("query", ["?version=import", "?source=api", "?topic=nothing"])
def test_filter_without_other_items_hands_out_no_gold(
    query: str,
    gold: list[Completion],
    annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
) -> None:
    make_completions(5)
    Completion.objects.filter(gold=True).update(source="api")
    client = as_user(annotator)

    for _ in range(3):
        assert shown(client.get(url("annotate") + query).content.decode()) is None
    assert not Lease.objects.exists()


def test_filter_shows_the_items_that_the_person_holds_whatever_they_are(
    gold: list[Completion], annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    ordinary = make_completions(5)
    client = as_user(annotator)
    for item in (gold[0], ordinary[3]):
        Lease.objects.all().delete()
        hand_out(annotator, item, ordinary[4])
        for query in ("", "?version=import", "?version=base", "?version=x", "?source=api"):
            assert shown(client.get(url("annotate") + query).content.decode()) == item.pk


def test_gold_under_a_filter_may_be_of_another_version_but_not_of_another_topic(
    project: Project,
    gold: list[Completion],
    annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
) -> None:
    ordinary = make_completions(6)
    Completion.objects.filter(pk__in=[ordinary[0].pk, ordinary[1].pk, gold[2].pk]).update(
        topic="tea"
    )
    client = as_user(annotator)

    client.get(url("annotate") + "?version=base")
    assert Lease.objects.filter(completion__in=gold).count() == 1
    Lease.objects.all().delete()
    client.get(url("annotate") + "?topic=tea")
    assert Lease.objects.filter(completion__gold=True).get().completion == gold[2]


def test_reloading_the_last_item_brings_no_gold(
    gold: list[Completion], annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    [last] = make_completions(1)
    hand_out(annotator, last)
    client = as_user(annotator)

    for _ in range(3):
        client.get(url("annotate"))

    assert Lease.objects.get().completion == last


@pytest.mark.parametrize("action", ["vote", "skip"])
def test_counter_falls_by_one_with_every_item(
    action: str,
    gold: list[Completion],
    annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
) -> None:
    make_completions(9)
    client = as_user(annotator)
    page = client.get(url("annotate")).content.decode()
    body = {"verdict": "up"} if action == "vote" else {}

    seen, counters = [], [left(page)]
    for _ in range(5):
        pk = shown(page)
        assert pk is not None
        seen.append(pk)
        page = client.post(url(action, pk), body, headers=DESK).content.decode()
        counters.append(left(page))
        undone = client.post(url("vote-undo", pk), headers=DESK).content.decode()
        assert (shown(undone), left(undone)) == (pk, counters[-2])
        page = client.post(url(action, pk), body, headers=DESK).content.decode()

    assert counters == [f"{12 - n} left" for n in range(6)]
    assert len({item.pk for item in gold} & set(seen)) == 3


def test_filtered_page_shows_no_counter(
    gold: list[Completion], annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    # falling counters of several filters would tell the version and source of an item
    make_completions(3)

    page = as_user(annotator).get(url("annotate") + "?version=base").content.decode()

    assert "left" not in page.split('class="today"')[1].split("</span>")[0]


def test_export_does_not_tell_gold_items(
    gold: list[Completion], annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    [ordinary] = make_completions(1)
    client = as_user(annotator)
    hand_out(annotator, gold[0], ordinary)
    for item in (gold[0], ordinary):
        client.post(url("vote", item.pk), {"verdict": "down"})
    assert GoldAnswer.objects.count() == 1

    export = b"".join(client.get(reverse("me-export")).streaming_content).decode()  # type: ignore[attr-defined]

    assert "gold_answers" not in export
    assert '"right"' not in export


@pytest.mark.parametrize("late", [False, True])
def test_undone_skip_of_gold_returns_like_any_other(
    late: bool,
    project: Project,
    gold: list[Completion],
    annotator: User,
    second_annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
) -> None:
    [ordinary, _] = make_completions(2)
    client = as_user(annotator)
    for item in (gold[0], ordinary):
        Lease.objects.all().delete()
        hand_out(annotator, item)
        client.post(url("skip", item.pk), headers=DESK)
        items_hand_out(project=project, by=second_annotator)
        if late:
            let_skips_expire()
        undone = client.post(url("vote-undo", item.pk), headers=DESK).content.decode()
        assert (shown(undone) == item.pk) is not late


def test_undone_demo_vote_does_not_show_that_the_answer_is_gold(
    project: Project, admin: User, annotator: User, as_user: As
) -> None:
    chat(project, annotator, version="base")
    own = Vote.objects.get().completion
    gold_mark(completion=own, verdict=Verdict.UP, why="", by=admin)
    client = as_user(annotator)

    for name in ("demo-undo", "vote-undo"):
        client.post(url("demo-vote", own.pk), {"verdict": "up"})
        client.post(url(name, own.pk))
        assert shown(client.get(url("annotate")).content.decode()) is None


def test_history_shows_no_difference(
    project: Project,
    gold: list[Completion],
    annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
) -> None:
    [ordinary] = make_completions(1)
    Prompt.objects.update(split="train")
    # it was trained on before this person judged it
    Example.objects.update(split="train", used_in_run=3)
    client = as_user(annotator)
    hand_out(annotator, gold[0], ordinary)
    for item in (gold[0], ordinary):
        client.post(url("vote", item.pk), {"verdict": "down"}, headers=DESK)

    page = client.get(url("annotate")).content.decode()

    fates = [row.split("·")[0].strip() for row in page.split('class="fate">')[1:]]
    assert len(fates) == 2
    assert fates[0] == fates[1]


@pytest.mark.parametrize("taken", [False, True])
def test_item_whose_lease_expired_returns_unless_another_person_came(
    taken: bool,
    project: Project,
    gold: list[Completion],
    annotator: User,
    second_annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
) -> None:
    [ordinary, *_] = make_completions(9)
    client = as_user(annotator)
    for item in (gold[0], ordinary):
        Lease.objects.all().delete()
        hand_out(annotator, item)
        Lease.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=1))
        if taken:
            items_hand_out(project=project, by=second_annotator)
        # chance adds no gold item
        Project.objects.update(gold_every=1_000)
        back = shown(client.get(url("annotate")).content.decode())
        assert (back == item.pk) is not taken
