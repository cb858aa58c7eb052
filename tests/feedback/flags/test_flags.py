"""Flags are limited for each person, and an admin can restore flagged items and undo that."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Completion, Lease, Project, Skip
from feedback_app.feedback.queue.services import item_skip, items_hand_out
from tests.conftest import MakeCompletions, hand_out
from tests.faults.test_handed_out import let_skips_expire
from tests.feedback.queue.test_concurrency import at_once

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
DESK = {"HX-Request": "true", "HX-Target": "stage"}


def url(name: str, *args: Any) -> str:
    return reverse(name, args=["bot", *args])


def flag(client: Client, by: User, completion: Completion) -> int:
    hand_out(by, completion)
    body = {"flag": "on", "comment": "It is <b>rude</b>."}
    return client.post(url("skip", completion.pk), body, headers=DESK).status_code


def flagged() -> set[int]:
    return set(Completion.objects.filter(flagged=True).values_list("pk", flat=True))


def test_flags_are_limited_to_a_share_of_the_queue(
    annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    items = make_completions(60)
    client = as_user(annotator)

    codes = [flag(client, annotator, item) for item in items[:6]]

    assert codes == [200, 200, 200, 422, 422, 422], "three in any case, and one in twenty"
    assert flagged() == {item.pk for item in items[:3]}
    # skips are not limited
    assert client.post(url("skip", items[3].pk), headers=DESK).status_code == 200


@pytest.mark.slow
def test_flags_are_limited_per_hour(
    project: Project, annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    items = make_completions(500)
    client = as_user(annotator)
    # a skip of long ago does not make its flag an old one
    item_skip(completion=items[0], by=annotator)
    Skip.objects.update(created_at=timezone.now() - dt.timedelta(days=1))

    codes = [flag(client, annotator, item) for item in items[:22]]

    assert codes == [200] * 20 + [422] * 2
    Skip.objects.update(created_at=timezone.now() - dt.timedelta(hours=1, seconds=1))
    assert flag(client, annotator, items[21]) == 200


def test_refused_flag_says_why_and_stores_nothing(
    annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    items = make_completions(4)
    client = as_user(annotator)
    for item in items[:3]:
        flag(client, annotator, item)
    hand_out(annotator, items[3])

    refused = client.post(url("skip", items[3].pk), {"flag": "on"}, headers=DESK)

    assert "admin" in refused["HX-Trigger"]
    assert Skip.objects.count() == 3


def test_vote_after_a_flag_keeps_the_flag_and_its_count(
    annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    items = make_completions(5)
    client = as_user(annotator)

    for item in items[:3]:
        flag(client, annotator, item)
        assert client.post(url("vote", item.pk), {"verdict": "up"}, headers=DESK).status_code == 200
        # a change takes another path than a first vote
        client.post(url("vote", item.pk), {"verdict": "down"}, headers=DESK)

    assert flag(client, annotator, items[3]) == 422
    assert Skip.objects.filter(flag=True).count() == 3


def test_undo_keeps_the_flag_of_another_person(
    project: Project,
    annotator: User,
    second_annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
) -> None:
    project.overlap = 2
    project.save()
    [item, _] = make_completions(2)
    for person in (annotator, second_annotator):
        flag(as_user(person), person, item)

    as_user(annotator).post(url("vote-undo", item.pk), headers=DESK)
    assert flagged() == {item.pk}
    as_user(second_annotator).post(url("vote-undo", item.pk), headers=DESK)
    assert flagged() == set()


def test_admin_restores_a_flagged_item_and_undoes_that(
    project: Project,
    admin: User,
    annotator: User,
    second_annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
) -> None:
    [item] = make_completions(1)
    flag(as_user(annotator), annotator, item)
    let_skips_expire()
    assert items_hand_out(project=project, by=second_annotator) == []
    client = as_user(admin)
    page = client.get(url("flags")).content.decode()
    assert "Ann Otator" in page
    assert "It is &lt;b&gt;rude&lt;/b&gt;." in page

    page = client.post(url("flag-restore", item.pk), follow=True).content.decode()

    assert "Restored" in page
    assert items_hand_out(project=project, by=second_annotator) == [item]
    assert "Ann Otator" in client.get(url("flags"), {"show": "restored"}).content.decode()
    # the same person does not flag it again
    assert flag(as_user(annotator), annotator, item) == 422
    Lease.objects.all().delete()
    client.post(url("flag-again", item.pk), follow=True)
    assert flagged() == {item.pk}
    actions = AuditEvent.objects.filter(action__startswith="flag.").order_by("pk")
    assert list(actions.values_list("action", "actor", "target")) == [
        ("flag.restore", admin.pk, str(item.pk)),
        ("flag.again", admin.pk, str(item.pk)),
    ]


def test_admin_restores_all_flags_of_a_person(
    admin: User,
    annotator: User,
    second_annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
) -> None:
    items = make_completions(4)
    for item in items[:3]:
        flag(as_user(annotator), annotator, item)
    flag(as_user(second_annotator), second_annotator, items[3])

    page = as_user(admin).post(url("flags-restore", annotator.pk), follow=True).content.decode()

    assert "3 items are back" in page
    assert flagged() == {items[3].pk}
    event = AuditEvent.objects.get(action="flag.restore")
    # no name: the trail stays when the person is erased
    assert event.target == f"3 of person {annotator.pk}"


def test_restored_twice_or_never_flagged_changes_nothing(
    admin: User, as_user: As, make_completions: MakeCompletions
) -> None:
    [item] = make_completions(1)
    client = as_user(admin)

    for name in ("flag-restore", "flag-again"):
        assert "nothing" in client.post(url(name, item.pk), follow=True).content.decode()
    assert flagged() == set()
    assert not AuditEvent.objects.filter(action__startswith="flag.").exists()


def test_flags_page_is_for_admins_and_takes_few_queries(
    annotator: User,
    admin: User,
    as_user: As,
    make_completions: MakeCompletions,
    django_assert_max_num_queries: Any,
) -> None:
    for item in make_completions(9)[:3]:
        flag(as_user(annotator), annotator, item)

    assert as_user(annotator).get(url("flags")).status_code == 403
    assert as_user(annotator).post(url("flag-restore", item.pk)).status_code == 403
    client = as_user(admin)
    with django_assert_max_num_queries(9):
        client.get(url("flags"))


def test_quality_page_counts_flags_of_people_without_votes_too(
    admin: User, annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    items = make_completions(3)
    for item in items[:2]:
        flag(as_user(annotator), annotator, item)
    client = as_user(admin)
    client.post(url("flag-restore", items[0].pk))
    vote = {"verdict": "up"}
    hand_out(admin, items[2])
    client.post(url("vote", items[2].pk), vote, headers=DESK)

    page = " ".join(client.get(url("quality"), {"sort": "flags"}).content.decode().split())

    row = page.split("Ann Otator")[1].split("</tr>")[0]
    assert "2 <span" in row
    assert "1 restored" in row


def test_admin_sees_at_the_desk_and_on_quality_that_flagged_items_wait(
    admin: User, annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    items = make_completions(6)
    client = as_user(admin)
    assert "flagged" not in client.get(url("annotate")).content.decode()
    for item in items[:2]:
        flag(as_user(annotator), annotator, item)

    for name in ("annotate", "quality"):
        page = client.get(url(name)).content.decode()
        assert url("flags") in page
        assert "2 flagged" in page
    assert url("flags") not in as_user(annotator).get(url("annotate")).content.decode()


@pytest.mark.django_db(transaction=True)
def test_flags_at_the_same_moment_do_not_pass_the_limit(
    annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    items = make_completions(8)
    hand_out(annotator, *items)
    clients = [as_user(annotator) for _ in items]

    def click(client: Client, item: Completion) -> None:
        client.post(url("skip", item.pk), {"flag": "on"}, headers=DESK)

    pairs = zip(clients, items, strict=True)
    assert at_once([lambda pair=pair: click(*pair) for pair in pairs]) == []

    assert len(flagged()) == 3
