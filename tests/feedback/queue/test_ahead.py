"""Items that a browser keeps for the time without a connection."""

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.gold.services import gold_mark
from feedback_app.feedback.models import Completion, Lease, Project, Source, Verdict
from feedback_app.feedback.queue.ahead import AHEAD, items_ahead
from feedback_app.feedback.queue.services import EVERYTHING, QueueView, items_hand_out
from feedback_app.feedback.votes.services import vote_cast
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
PAGE = reverse("annotate-ahead", args=["bot"])


def handed_out(project: Project, by: User, view: QueueView = EVERYTHING) -> list[int]:
    return [item.pk for item in items_hand_out(project=project, by=by, view=view)]


def kept(project: Project, by: User) -> list[int]:
    return [item.pk for item in items_ahead(project=project, by=by)]


def judge(pk: int, by: User) -> None:
    vote_cast(
        completion=Completion.objects.select_related("project", "prompt").get(pk=pk),
        verdict=Verdict.UP,
        by=by,
        source=Source.ANNOTATE,
    )


def test_fifty_items_are_kept_beside_the_two_of_the_page(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    items = [item.pk for item in make_completions(2 * AHEAD + 10)]
    assert handed_out(project, annotator) == items[:2]

    assert kept(project, annotator) == items[:AHEAD]
    assert kept(project, annotator) == items[:AHEAD], "no more at the next call"
    assert Lease.objects.filter(ahead=True).count() == 50


@pytest.mark.parametrize("every", [1, 3])
def test_browser_keeps_what_the_server_hands_out_next_gold_items_included(
    every: int,
    project: Project,
    annotator: User,
    admin: User,
    make_completions: MakeCompletions,
) -> None:
    gold = make_completions(4)
    Completion.objects.update(queued=False)
    for item in gold:
        gold_mark(completion=item, verdict=Verdict.UP, why="", by=admin)
    make_completions(40)
    Project.objects.update(gold_every=every)
    project.refresh_from_db()
    handed_out(project, annotator)

    coming = kept(project, annotator)

    assert len(coming) > 15
    known = {item.pk for item in gold}
    if every == 1:
        assert known < set(coming)
        assert coming[-1] not in known, "it would be known"
    for pk in coming[:-1]:
        first, *_ = handed_out(project, annotator)
        assert first == pk
        judge(pk, annotator)


def test_half_of_what_is_open_is_left_to_others(
    project: Project, annotator: User, second_annotator: User, make_completions: MakeCompletions
) -> None:
    items = [item.pk for item in make_completions(10)]
    handed_out(project, annotator)

    assert kept(project, annotator) == items[:6]

    assert handed_out(project, second_annotator) == items[6:8]


def test_person_without_items_gets_those_that_others_hold_ahead(
    project: Project, annotator: User, second_annotator: User, make_completions: MakeCompletions
) -> None:
    items = [item.pk for item in make_completions(6)]
    handed_out(project, annotator)
    assert kept(project, annotator) == items[:4]
    for pk in items[4:]:
        judge(pk, second_annotator)

    assert handed_out(project, second_annotator) == items[2:4]

    # the two on the screen of the other person stay theirs
    assert handed_out(project, annotator) == items[:2]
    for pk in items[:2]:
        judge(pk, annotator)
    assert handed_out(project, annotator) == []


def test_filter_finds_items_that_are_kept_ahead(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    items = [item.pk for item in make_completions(12)]
    Completion.objects.filter(pk__in=items[4:6]).update(version="bot@1")
    handed_out(project, annotator)
    assert set(items[4:6]) < set(kept(project, annotator))
    for pk in items[:2]:
        judge(pk, annotator)

    assert handed_out(project, annotator, QueueView(version="bot@1")) == items[4:6]
    # and what is on the screen is no longer ahead
    assert handed_out(project, annotator) == items[4:6]


def test_reading_begins_when_an_item_is_handed_out(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    items = [item.pk for item in make_completions(20)]
    Completion.objects.update(text="word " * 150)
    handed_out(project, annotator)
    Lease.objects.update(taken_at=timezone.now() - dt.timedelta(minutes=1))
    kept(project, annotator)

    for pk in items[:3]:
        assert handed_out(project, annotator)[0] == pk
        judge(pk, annotator)

    hasty = dict(project.votes.values_list("completion", "hasty"))
    assert hasty == {items[0]: False, items[1]: True, items[2]: True}


def test_verdicts_on_what_the_browser_kept_are_not_hasty(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    items = [item.pk for item in make_completions(20)]
    Completion.objects.update(text="word " * 150)
    handed_out(project, annotator)
    kept(project, annotator)
    Lease.objects.update(taken_at=timezone.now() - dt.timedelta(minutes=1))

    for pk in items[:6]:  # sent one after the other, once the connection is back
        judge(pk, annotator)

    assert not project.votes.filter(hasty=True).exists()
    assert project.votes.count() == 6


def test_all_leases_are_extended_in_their_order_while_the_person_works(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    make_completions(20)
    handed_out(project, annotator)
    coming = kept(project, annotator)
    past = dt.timedelta(minutes=8)
    for lease in Lease.objects.all():
        lease.expires_at -= past
        lease.save()

    handed_out(project, annotator)

    soon = timezone.now() + dt.timedelta(minutes=9)
    assert not Lease.objects.filter(expires_at__lt=soon).exists()
    assert kept(project, annotator)[: len(coming)] == coming


def ids(page: str) -> dict[int, bool]:
    """Return which items the response has, and whether with their content."""
    parts = re.findall(r'<template data-ahead-item="(\d+)">(.*?)</template>', page, re.DOTALL)
    return {int(pk): f'data-completion="{pk}"' in text for pk, text in parts}


def test_browser_gets_the_content_of_what_it_does_not_have(
    project: Project,
    annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
    django_assert_max_num_queries: Any,
) -> None:
    items = [item.pk for item in make_completions(30)]
    client = as_user(annotator)
    page = client.get(reverse("annotate", args=["bot"])).content.decode()
    assert f'data-ahead="{PAGE}"' in page
    filtered = client.get(reverse("annotate", args=["bot"]) + "?source=demo").content.decode()
    assert "data-ahead" not in filtered

    first = ids(client.get(PAGE).content.decode())
    assert list(first) == items[:16]
    assert all(first.values())
    with django_assert_max_num_queries(20):
        again = client.get(PAGE, {"have": ",".join(map(str, items[:15]))}).content.decode()
    assert ids(again) == {pk: pk == items[15] for pk in items[:16]} | {
        pk: True for pk in ids(again) if pk not in items[:16]
    }
    assert client.get(PAGE, {"have": "1,x"}).status_code == 400
    assert client.get(PAGE, headers={"X-Person": "0"}).status_code == 400


def test_archived_project_hands_out_nothing_ahead(
    project: Project, annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    make_completions(9)
    client = as_user(annotator)
    Project.objects.update(archived_at=timezone.now())

    assert ids(client.get(PAGE).content.decode()) == {}
    assert not Lease.objects.exists()


def test_kept_page_has_the_policy_of_the_page(
    project: Project, annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    client = as_user(annotator)
    served = client.get(reverse("annotate", args=["bot"]))["Content-Security-Policy"]

    worker = Client().get(reverse("annotate-worker"))

    assert worker["Content-Type"].startswith("text/javascript")
    policy = worker.content.decode().split("const POLICY = [")[1].split("]")[0]
    assert set(re.findall(r'"(.+?)"', policy)) == {part.strip() for part in served.split(";")}
