"""Prepared SQL gives the same results as Django's own, for any values."""

import datetime as dt
from typing import Any

import pytest
from django.db.models import QuerySet
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.db.prepared import STORED, Prepared, Statement, insertion, run, run_if_new
from feedback_app.feedback.models import Completion, Example, Lease
from feedback_app.feedback.queue.services import items_hand_out
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db


def answers(most: int, **values: Any) -> QuerySet[Completion]:
    found = Completion.objects.filter(**values).select_related("prompt").order_by("-pk")
    return found.defer("text")[:most]


def test_values_and_shapes_follow_the_call(
    make_completions: MakeCompletions, django_assert_num_queries: Any
) -> None:
    made = make_completions(4)
    prepared = Prepared[Completion](answers)

    assert [row.pk for row in prepared.rows(3, project=made[0].project_id)] == [
        made[3].pk,
        made[2].pk,
        made[1].pk,
    ]
    assert prepared.rows(3, project=0) == []
    assert prepared.rows(1, project=made[0].project_id) == [made[3]]
    assert prepared.rows(3, pk=made[1].pk) == [made[1]]
    assert prepared.first(3, pk=0) is None
    with django_assert_num_queries(1):
        (row,) = prepared.rows(3, pk=made[2].pk)
        assert row.prompt == made[2].prompt
        # converted as the fields define, not as the database returns it
        assert row.prompt.messages == made[2].prompt.messages
        assert row.created_at == made[2].created_at
    with django_assert_num_queries(1):
        assert row.text == made[2].text  # deferred, so it is queried now


def test_datetimes_are_compared_as_in_django(
    make_completions: MakeCompletions, annotator: User
) -> None:
    item = items_hand_out(project=make_completions(1)[0].project, by=annotator)[0]
    prepared = Prepared[Lease](lambda **values: Lease.objects.filter(expires_at__gt=values["now"]))
    until = Lease.objects.get(completion=item).expires_at

    assert len(prepared.rows(now=timezone.now())) == 1
    assert len(prepared.rows(now=until - dt.timedelta(microseconds=1))) == 1
    assert prepared.rows(now=until) == []


def example(completion: Completion, *, desirable: bool, **options: Any) -> Statement:
    row = Example(
        completion=completion,
        project_id=completion.project_id,
        desirable=desirable,
        weight=1,
        split="train",
    )
    return insertion(row, unique=["completion"], **options)


def test_insert_updates_or_keeps_an_existing_row(make_completions: MakeCompletions) -> None:
    (one,) = make_completions(1)

    assert run(*example(one, desirable=True)) == [(one.pk,)]
    assert run(*example(one, desirable=False)) == []
    assert Example.objects.get().desirable
    assert run(*example(one, desirable=False, update=["desirable"])) == [(one.pk,)]
    assert not Example.objects.get().desirable


def test_dependent_statements_run_only_if_the_row_is_written(
    make_completions: MakeCompletions,
) -> None:
    one, other = make_completions(2)
    topic = f"UPDATE feedback_completion SET topic = %s WHERE id = %s AND {STORED}"  # noqa: S608

    def write(word: str) -> list[tuple[Any, ...]]:
        return run_if_new(
            example(one, desirable=True),
            (topic, [word, one.pk]),
            example(other, desirable=False, update=["desirable"], where=STORED),
        )

    assert write("a % b") == [(one.pk,)]
    Example.objects.filter(completion=other).delete()
    assert write("again") == []
    assert set(Example.objects.values_list("pk", "desirable")) == {(one.pk, True)}
    one.refresh_from_db()
    assert one.topic == "a % b"
