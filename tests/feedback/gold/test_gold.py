"""Gold items: hidden among the others; low accuracy pauses a person and sets votes aside."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.gold import pauses
from feedback_app.feedback.gold.pauses import pause_if_due
from feedback_app.feedback.gold.services import gold_mark, gold_unmark
from feedback_app.feedback.models import (
    Completion,
    Example,
    GoldAnswer,
    Pause,
    Project,
    Source,
    Verdict,
    Vote,
)
from feedback_app.feedback.queue.services import items_hand_out
from feedback_app.feedback.votes.services import vote_cast
from tests.conftest import MakeCompletions, hand_out

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
DESK = {"HX-Request": "true", "HX-Target": "stage"}


def url(name: str, *args: Any) -> str:
    return reverse(name, args=["bot", *args])


def cast(completion: Completion, by: User, verdict: Verdict, source: str = "annotate") -> Vote:
    return vote_cast(completion=completion, verdict=verdict, by=by, source=Source(source))


@pytest.fixture
def gold(project: Project, admin: User, make_completions: MakeCompletions) -> list[Completion]:
    """Four gold items with the verdict up; gold comes before other items while any is left."""
    project.gold_every, project.gold_window, project.gold_least = 1, 3, 60
    project.save()
    items = make_completions(4)
    for item in items:
        gold_mark(completion=item, verdict=Verdict.UP, why="It is honest.", by=admin)
    return items


def test_gold_is_handed_out_once_to_each_person_and_takes_no_slot(
    project: Project,
    gold: list[Completion],
    annotator: User,
    second_annotator: User,
    make_completions: MakeCompletions,
) -> None:
    ordinary = {item.pk for item in make_completions(12)}
    ids = {item.pk for item in gold}
    for person in (annotator, second_annotator):
        seen = []
        for _ in range(7):
            held = items_hand_out(project=project, by=person)
            again = items_hand_out(project=project, by=person)
            assert [item.pk for item in held] == [item.pk for item in again], (
                "a reload must not change the item"
            )
            seen.append(held[0].pk)
            cast(held[0], person, Verdict.UP)
        assert len(set(seen)) == 7
        assert ids <= set(seen)
        assert len(set(seen) & ordinary) == 3


def test_gold_switched_off_is_not_handed_out(
    project: Project, gold: list[Completion], annotator: User, make_completions: MakeCompletions
) -> None:
    project.gold_every = 0
    project.save()
    ordinary = make_completions(2)

    assert items_hand_out(project=project, by=annotator) == ordinary


def test_gold_vote_looks_like_any_other_and_changes_no_example(
    gold: list[Completion], annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    [ordinary] = make_completions()
    client = as_user(annotator)
    page = client.get(url("annotate")).content.decode()
    shown = items_hand_out(project=gold[0].project, by=annotator)[0]
    assert shown in gold
    assert "gold" not in page.split("<main")[1].lower()

    answer = client.post(url("vote", shown.pk), {"verdict": "down"}, headers=DESK)
    undone = client.post(url("vote-undo", shown.pk), headers=DESK)

    assert "used as an example" in answer.content.decode()
    assert f'data-completion="{shown.pk}"' in undone.content.decode().split("<template")[0]
    example = Example.objects.get(completion=shown)
    assert (example.desirable, example.weight) == (True, 1)
    assert GoldAnswer.objects.get().right is False
    # only the first verdict counts
    client.post(url("vote", shown.pk), {"verdict": "up"}, headers=DESK)
    assert GoldAnswer.objects.get().right is False
    cast(ordinary, annotator, Verdict.UP)
    assert GoldAnswer.objects.count() == 1


@pytest.mark.parametrize("policy", ["never", "at_once", "after"])
def test_gold_feedback_follows_the_project_setting(
    policy: str, project: Project, gold: list[Completion], annotator: User, as_user: As
) -> None:
    Project.objects.update(gold_feedback=policy, gold_window=50)
    client = as_user(annotator)
    answers = []
    for item in gold:
        hand_out(annotator, item)
        answers.append(client.post(url("vote", item.pk), {"verdict": "down"}, headers=DESK))

    at_once = ["It is honest." in answer.get("HX-Trigger", "") for answer in answers]
    assert at_once == [policy == "at_once"] * 4
    last = answers[-1].content.decode()
    assert ("4 of today&#x27;s answers had" in last or "4 of today's" in last) == (
        policy == "after"
    )
    assert ("<q>It is honest.</q>" in last) == (policy == "after")


@pytest.mark.slow
def test_low_gold_accuracy_pauses_and_sets_recent_votes_aside(
    project: Project,
    gold: list[Completion],
    annotator: User,
    second_annotator: User,
    admin: User,
    as_user: As,
    make_completions: MakeCompletions,
    django_capture_on_commit_callbacks: Any,
) -> None:
    before, tied, after, shared = make_completions(4)
    Project.objects.update(overlap=2)
    project.refresh_from_db()
    client = as_user(annotator)

    def judge(completion: Completion, verdict: str) -> int:
        hand_out(annotator, completion)
        with django_capture_on_commit_callbacks(execute=True):
            answer = client.post(url("vote", completion.pk), {"verdict": verdict}, headers=DESK)
        return answer.status_code

    cast(shared, second_annotator, Verdict.DOWN)
    cast(tied, second_annotator, Verdict.UP)
    judge(before, "down")
    judge(gold[0], "up")  # right
    judge(after, "down")
    judge(shared, "down")
    judge(tied, "down")
    Example.objects.filter(pk=after.pk).update(used_in_run=3)
    old = set(Example.objects.values_list("pk", "desirable", "weight", "used_in_run", "created_at"))
    counts = set(project.completions.values_list("pk", "vote_count", "contested"))
    judge(gold[1], "down")
    assert not Pause.objects.exists(), "a window of three needs three gold votes"
    judge(gold[2], "down")  # one right of three

    pause = Pause.objects.get()
    assert (pause.right, pause.of, pause.votes_set_aside) == (1, 3, 5)
    assert Example.objects.filter(pk=before.pk).exists()
    assert not Example.objects.filter(pk=after.pk).exists()
    tied.refresh_from_db()
    assert (tied.vote_count, tied.contested, tied.example.desirable) == (1, False, True)
    assert shared.example.weight == 1
    # the desk of a paused person shows the reason and accepts no votes
    desk = client.get(url("annotate")).content.decode()
    assert "You are paused" in desk
    # before, gold[0], after, shared, tied: all but the first two, and the wrong verdicts on gold
    assert desk.count("set aside for now") == 5
    assert client.get(url("annotate-status")).status_code == 286
    assert judge(before, "up") == 422
    assert client.post(url("skip", before.pk), headers=DESK).status_code == 422
    other = as_user(second_annotator).get(url("annotate")).content.decode()
    assert "You are paused" not in other
    page = as_user(admin).get(url("gold")).content.decode()
    assert "was right on 1 of the last 3 gold items" in page

    lifted = as_user(admin).post(url("pause-lift", pause.pk), {"restore": "on"}, follow=True)

    assert "5 votes count again" in lifted.content.decode()
    found = Example.objects.values_list("pk", "desirable", "weight", "used_in_run", "created_at")
    assert set(found) == old
    judged_gold = {(item.pk, 1, False) for item in gold[1:3]}
    now = set(project.completions.values_list("pk", "vote_count", "contested"))
    assert now - judged_gold == counts - {(pk, 0, False) for pk, _, _ in judged_gold}
    assert "You are paused" not in client.get(url("annotate")).content.decode()
    # the window restarts: earlier wrong verdicts do not pause the person again
    judge(gold[3], "down")
    assert Pause.objects.filter(lifted_at=None).count() == 0
    assert set(AuditEvent.objects.values_list("action", flat=True)) >= {"pause.begin", "pause.lift"}


def test_vote_that_is_cast_while_a_pause_begins_keeps_its_example(
    project: Project,
    gold: list[Completion],
    annotator: User,
    make_completions: MakeCompletions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, meanwhile = make_completions(2)
    for completion in (before, *gold[:3]):
        cast(completion, annotator, Verdict.DOWN)
    lock = pauses.completions_lock

    def cast_and_lock(completions: list[int]) -> None:
        cast(meanwhile, annotator, Verdict.DOWN)
        lock(completions)

    monkeypatch.setattr(pauses, "completions_lock", cast_and_lock)
    pause = pause_if_due(project_id=project.pk, user=annotator)

    assert pause is not None
    aside = Vote.objects.filter(set_aside=pause).values_list("completion", flat=True)
    assert before.pk in aside
    assert meanwhile.pk not in aside
    assert Example.objects.filter(completion=meanwhile).exists()
    assert pause.votes_set_aside == len(aside)


def test_pause_lifted_without_votes_lets_them_be_restored_later(
    project: Project,
    gold: list[Completion],
    annotator: User,
    admin: User,
    as_user: As,
    make_completions: MakeCompletions,
) -> None:
    first, second = make_completions(2)
    for completion in (first, second, *gold[:3]):
        cast(completion, annotator, Verdict.DOWN)
    pause = pause_if_due(project_id=project.pk, user=annotator)
    assert pause is not None
    assert pause_if_due(project_id=project.pk, user=annotator) is None
    client = as_user(admin)

    client.post(url("pause-lift", pause.pk))
    twice = client.post(url("pause-lift", pause.pk), follow=True)
    assert b"already been lifted" in twice.content
    assert not Example.objects.filter(pk__in=[first.pk, second.pk]).exists()
    # a verdict cast again counts again
    cast(first, annotator, Verdict.DOWN)
    assert Example.objects.filter(pk=first.pk).exists()
    assert first.vote_events.count() == 2
    pause.refresh_from_db()
    assert b"Restore votes" in client.get(url("gold")).content
    client.post(url("votes-restore", pause.pk))
    assert Example.objects.filter(pk=second.pk).exists()
    assert not Vote.objects.exclude(set_aside=None).exists()


def test_unmarked_gold_returns_to_its_votes_and_the_queue(
    project: Project, gold: list[Completion], annotator: User, admin: User
) -> None:
    cast(gold[0], annotator, Verdict.DOWN)

    gold_unmark(item=gold[0].gold_item, by=admin)

    assert Example.objects.get(completion=gold[0]).desirable is False
    assert not GoldAnswer.objects.exists()
    gold[0].refresh_from_db()
    assert (gold[0].queued, gold[0].gold, gold[0].decided) == (True, False, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("every", "said", "shown"),
    [(20, "get it among their other items", "one in 20"), (0, "get no gold items", "none at")],
)
def test_message_after_marking_agrees_with_the_page(
    project: Project,
    admin: User,
    make_completions: MakeCompletions,
    as_user: As,
    every: int,
    said: str,
    shown: str,
) -> None:
    Project.objects.update(gold_every=every)
    [completion] = make_completions()
    mark = url("gold-mark", completion.pk)
    answer = as_user(admin).post(mark, {"verdict": "up", "why": "It is."}, follow=True)
    page = " ".join(answer.content.decode().split())
    assert said in page
    assert shown in page


def test_gold_is_marked_in_the_list_of_examples(
    project: Project,
    voted_project: Project,
    admin: User,
    annotator: User,
    as_user: As,
    django_assert_max_num_queries: Any,
) -> None:
    completion = Completion.objects.first()
    assert completion is not None
    client = as_user(admin)
    assert b"Gold: up is right" in client.get(url("examples")).content

    body = {"verdict": "down", "why": "<i>False</i>."}
    page = client.post(url("gold-mark", completion.pk), body, follow=True).content.decode()
    again = client.post(url("gold-mark", completion.pk), body, follow=True)

    assert "&lt;i&gt;False&lt;/i&gt;." in page
    assert b"already in the gold set" in again.content
    assert Example.objects.get(completion=completion).desirable is False
    assert as_user(annotator).post(url("gold-mark", completion.pk), body).status_code == 403
    for row in Completion.objects.all()[1:9]:
        gold_mark(completion=row, verdict=Verdict.UP, why="", by=admin)
    with django_assert_max_num_queries(8):
        client.get(url("gold"))
