"""Handing out items: no two people hold the same slot, and an empty queue gives a reason."""

import datetime as dt
from importlib import import_module

import pytest
from django.apps import apps
from django.db import connection
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.desk.selectors import (
    LEFT_LIMIT,
    empty_queue,
    queue_progress,
    queue_values,
)
from feedback_app.feedback.models import (
    Completion,
    Lease,
    Project,
    Prompt,
    Sampling,
    Skip,
    Source,
    Verdict,
)
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import prompts_add
from feedback_app.feedback.queue.services import (
    UNDO_SKIP,
    QueueView,
    item_skip,
    items_hand_out,
    uncertainty_store,
)
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db


def let_skips_expire() -> None:
    """Let the time pass in which a skip can be undone."""
    past = timezone.now() - UNDO_SKIP
    Skip.objects.update(created_at=past)
    Lease.objects.update(expires_at=past)


def test_two_people_never_get_the_same_item(
    project: Project, annotator: User, second_annotator: User, make_completions: MakeCompletions
) -> None:
    make_completions(4)
    mine = {item.pk for item in items_hand_out(project=project, by=annotator)}
    theirs = {item.pk for item in items_hand_out(project=project, by=second_annotator)}
    assert len(mine) == len(theirs) == 2
    assert not mine & theirs


def test_reload_shows_the_same_item(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    make_completions(5)
    first = [item.pk for item in items_hand_out(project=project, by=annotator)]
    again = [item.pk for item in items_hand_out(project=project, by=annotator)]
    assert first == again


def test_items_of_other_tabs_are_left_out_while_there_are_others(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    first, second, third, last = (item.pk for item in make_completions(4))

    def shown(*elsewhere: int) -> list[int]:
        items = items_hand_out(project=project, by=annotator, elsewhere=elsewhere)
        return [item.pk for item in items]

    assert shown() == [first, second]
    assert shown(first, second) == [third, last]
    assert shown(third, last) == [first, second]
    assert Lease.objects.count() == 4
    # better the same item in two tabs than none
    assert shown(first, second, third, last) == [first, second]


def test_expired_lease_frees_the_item(
    project: Project, annotator: User, second_annotator: User, make_completions: MakeCompletions
) -> None:
    (only,) = make_completions(1)
    items_hand_out(project=project, by=annotator)
    assert items_hand_out(project=project, by=second_annotator) == []

    Lease.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    assert items_hand_out(project=project, by=second_annotator) == [only]


def test_overlap_hands_an_item_to_that_many_people(
    project: Project,
    annotator: User,
    second_annotator: User,
    admin: User,
    make_completions: MakeCompletions,
) -> None:
    project.overlap = 2
    project.save()
    (only,) = make_completions(1)
    assert items_hand_out(project=project, by=annotator) == [only]
    assert items_hand_out(project=project, by=second_annotator) == [only]
    assert items_hand_out(project=project, by=admin) == []


def test_raised_overlap_requeues_an_item_and_lowered_removes_it(
    project: Project, annotator: User, second_annotator: User, make_completions: MakeCompletions
) -> None:
    (only,) = make_completions(1)
    vote_cast(completion=only, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    assert items_hand_out(project=project, by=second_annotator) == []

    project.overlap = 2
    project.save()
    assert items_hand_out(project=project, by=annotator) == [], "a person votes once on an answer"
    assert items_hand_out(project=project, by=second_annotator) == [only]

    project.overlap = 1
    project.save()
    assert items_hand_out(project=project, by=second_annotator) == []


def test_undone_item_is_shown_before_the_others(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    make_completions(5)
    first = items_hand_out(project=project, by=annotator)[0]
    vote_cast(completion=first, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    assert items_hand_out(project=project, by=annotator)[0] != first

    vote_undo(completion=first, by=annotator, source=Source.ANNOTATE)
    assert items_hand_out(project=project, by=annotator)[0] == first


def test_skipped_item_stays_reserved_for_a_minute_and_returns_by_undo(
    project: Project, annotator: User, second_annotator: User, make_completions: MakeCompletions
) -> None:
    (only,) = make_completions(1)
    items_hand_out(project=project, by=annotator)
    item_skip(completion=only, by=annotator)
    assert items_hand_out(project=project, by=annotator) == []
    assert items_hand_out(project=project, by=second_annotator) == []
    free = empty_queue(project=project, user=second_annotator)
    assert (free.reason, free.until) == ("leased", Lease.objects.get().expires_at)
    # a repeated request does not reserve it for longer
    until = timezone.now() + dt.timedelta(seconds=5)
    Lease.objects.update(expires_at=until)
    item_skip(completion=only, by=annotator)
    assert Lease.objects.get().expires_at == until

    assert vote_undo(completion=only, by=annotator, source=Source.ANNOTATE)

    assert items_hand_out(project=project, by=annotator) == [only]


def test_skip_cannot_be_undone_after_its_minute(
    project: Project, annotator: User, second_annotator: User, make_completions: MakeCompletions
) -> None:
    (only,) = make_completions(1)
    items_hand_out(project=project, by=annotator)
    item_skip(completion=only, by=annotator)
    let_skips_expire()

    assert not vote_undo(completion=only, by=annotator, source=Source.ANNOTATE)

    assert items_hand_out(project=project, by=annotator) == []
    assert items_hand_out(project=project, by=second_annotator) == [only]


def test_half_expired_lease_is_renewed_while_the_person_works(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    make_completions(2)
    items_hand_out(project=project, by=annotator)
    Lease.objects.update(expires_at=timezone.now() + dt.timedelta(minutes=1))

    items_hand_out(project=project, by=annotator)

    ends = Lease.objects.values_list("expires_at", flat=True)
    assert all(end > timezone.now() + dt.timedelta(minutes=9) for end in ends)


def test_skipped_item_goes_to_another_person(
    project: Project, annotator: User, second_annotator: User, make_completions: MakeCompletions
) -> None:
    (only,) = make_completions(1)
    items_hand_out(project=project, by=annotator)
    item_skip(completion=only, by=annotator)
    let_skips_expire()
    assert items_hand_out(project=project, by=annotator) == []
    assert items_hand_out(project=project, by=second_annotator) == [only]


def test_first_answers_of_all_prompts_precede_second_ones(
    project: Project, make_completions: MakeCompletions
) -> None:
    first = make_completions(3)
    sampling = Sampling.objects.get()
    second = completion_create(
        project=project,
        prompt=first[0].prompt,
        answer=Answer("Another.", "base", "stop", None, None),
        source=Source.IMPORT,
        sampling=sampling,
    )
    assert [c.pk for [part] in [project.completions.in_queue_order()] for c in part] == [
        *[c.pk for c in first],
        second.pk,
    ]


def test_answer_with_a_nul_is_stored_on_every_database(
    project: Project, make_completions: MakeCompletions
) -> None:
    (first,) = make_completions(1)
    stored = completion_create(
        project=project,
        prompt=first.prompt,
        answer=Answer("Before\x00after.", "base", "stop", None, None),
        source=Source.DEMO,
    )
    stored.refresh_from_db()
    assert stored.text == "Before\ufffdafter."


def test_empty_queue_gives_the_reason(
    project: Project, annotator: User, second_annotator: User, make_completions: MakeCompletions
) -> None:
    assert empty_queue(project=project, user=annotator).reason == "no_prompts"

    sampling = Sampling.objects.create(project=project, total=2)
    assert empty_queue(project=project, user=annotator).reason == "sampling"
    sampling.delete()

    (only,) = make_completions(1)
    items_hand_out(project=project, by=second_annotator)
    leased = empty_queue(project=project, user=annotator)
    assert leased.reason == "leased"
    assert leased.until == Lease.objects.get().expires_at

    vote_cast(completion=only, verdict=Verdict.UP, by=second_annotator, source=Source.ANNOTATE)
    assert empty_queue(project=project, user=annotator).reason == "done"


def test_progress_counts_today_and_what_is_left(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    first, *_ = make_completions(3)
    vote_cast(completion=first, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    progress = queue_progress(project=project, user=annotator)
    assert (progress.today, progress.left, progress.goal) == (1, 2, 3)


def test_progress_does_not_count_beyond_a_hundred(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    first, *_ = make_completions(LEFT_LIMIT + 2)
    vote_cast(completion=first, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    progress = queue_progress(project=project, user=annotator)
    assert (progress.many_left, progress.today, progress.goal) == (True, 1, 100)


# -- orders and filters


def order_of(project: Project, by: User, view: QueueView, count: int = 9) -> list[int]:
    return [item.pk for item in items_hand_out(project=project, by=by, view=view, count=count)]


def test_first_votes_precede_second_ones_in_every_order(
    project: Project, annotator: User, second_annotator: User, make_completions: MakeCompletions
) -> None:
    project.overlap = 2
    project.save()
    first, second, third = make_completions(3)
    vote_cast(completion=first, verdict=Verdict.UP, by=second_annotator, source=Source.ANNOTATE)
    for order in ("balanced", "newest", "uploaded"):
        found = order_of(project, annotator, QueueView(order=order))
        assert found == [second.pk, third.pk, first.pk], order
        Lease.objects.all().delete()


def test_newest_version_is_ordered_by_number(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    (base,) = make_completions(1)
    sampling = Sampling.objects.get()
    ninth, tenth = (
        completion_create(
            project=project,
            prompt=base.prompt,
            answer=Answer(f"By {version}.", version, "stop", None, None),
            source=Source.IMPORT,
            sampling=sampling,
        )
        for version in ("bot@9", "bot@10")
    )
    found = order_of(project, annotator, QueueView(order="newest"))
    assert found == [tenth.pk, ninth.pk, base.pk]


def test_disagreements_are_ordered_first(
    project: Project,
    annotator: User,
    second_annotator: User,
    admin: User,
    make_completions: MakeCompletions,
) -> None:
    project.overlap = 3
    project.save()
    first, second, disputed = make_completions(3)
    vote_cast(completion=disputed, verdict=Verdict.UP, by=admin, source=Source.ANNOTATE)
    vote_cast(completion=disputed, verdict=Verdict.DOWN, by=second_annotator, source=Source.DEMO)
    view = QueueView(order="contested")
    assert order_of(project, annotator, view) == [disputed.pk, first.pk, second.pk]

    # the votes agree after a change
    vote_cast(completion=disputed, verdict=Verdict.UP, by=second_annotator, source=Source.DEMO)
    Lease.objects.all().delete()
    assert order_of(project, annotator, view) == [first.pk, second.pk, disputed.pk]


def test_least_certain_answers_are_ordered_first(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    never_seen, sure, unsure = make_completions(3)
    uncertainty_store(project=project, fit={never_seen.pk: (0.5, 0.0)})
    uncertainty_store(project=project, fit={sure.pk: (-4.0, 0.5), unsure.pk: (0.75, 0.5)})
    found = order_of(project, annotator, QueueView(order="unsure"))
    assert found == [unsure.pk, sure.pk, never_seen.pk]
    never_seen.refresh_from_db()
    assert never_seen.unsure is None


def test_order_is_the_project_default_unless_in_the_address(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    first, second = make_completions(2)
    project.completions.filter(pk=first.pk).update(queue_position=5)
    project.queue_order = "uploaded"
    project.save()
    assert order_of(project, annotator, QueueView(), count=1) == [first.pk]
    Lease.objects.all().delete()
    assert order_of(project, annotator, QueueView(order="balanced"), count=1) == [second.pk]


@pytest.mark.parametrize(
    "view",
    [QueueView(version="bot@2"), QueueView(source="api"), QueueView(topic="Köln & more")],
)
def test_filter_hands_out_only_matching_items(
    view: QueueView, project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    _, wanted, _ = make_completions(3)
    project.completions.filter(pk=wanted.pk).update(**view.filters())

    assert order_of(project, annotator, view) == [wanted.pk]
    vote_cast(completion=wanted, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    assert order_of(project, annotator, view) == []
    assert empty_queue(project=project, user=annotator, view=view).reason == "filtered"
    assert queue_progress(project=project, user=annotator, view=view).left is None


def test_filter_choices_are_the_values_in_the_queue(
    project: Project, make_completions: MakeCompletions
) -> None:
    first, second, third, gone = make_completions(4)
    for row, version in ((first, "bot@2"), (second, "base"), (third, "bot@2"), (gone, "x")):
        project.completions.filter(pk=row.pk).update(version=version, flagged=row == gone)
    assert queue_values(project=project, field="version") == ["base", "bot@2"]
    assert queue_values(project=project, field="topic") == []


def test_migration_fills_version_topic_and_disagreement(
    project: Project, annotator: User, second_annotator: User, make_completions: MakeCompletions
) -> None:
    migration = import_module("feedback_app.feedback.migrations.0006_fill_queue_columns")
    first, second, third = make_completions(3)
    Prompt.objects.filter(pk=first.prompt_id).update(topic="tea")
    Completion.objects.filter(pk=second.pk).update(version="bot@12")
    vote_cast(completion=third, verdict=Verdict.UP, by=annotator, source=Source.DEMO)
    vote_cast(completion=third, verdict=Verdict.DOWN, by=second_annotator, source=Source.DEMO)
    Completion.objects.update(contested=False)

    migration.fill(apps, None)

    facts = Completion.objects.order_by("pk")
    assert list(facts.values_list("topic", "version_number", "contested")) == [
        ("tea", 0, False),
        ("", 12, False),
        ("", 0, True),
    ]


PLANS = [
    ("queue_balanced", QueueView()),
    ("queue_newest", QueueView(order="newest")),
    ("queue_uploaded", QueueView(order="uploaded")),
    ("queue_contested", QueueView(order="contested")),
    ("queue_unsure", QueueView(order="unsure")),
    ("queue_version", QueueView(version="base")),
    ("queue_source", QueueView(source="import")),
    ("queue_topic", QueueView(topic="travel")),
    # the newest answer of one version
    ("queue_version", QueueView(order="newest", version="base")),
    ("queue_version_uploaded", QueueView(order="uploaded", version="base")),
]


@pytest.mark.parametrize(
    ("index", "view"), PLANS, ids=[index + view.order for index, view in PLANS]
)
def test_every_order_and_filter_uses_its_index_without_a_sort(
    index: str,
    view: QueueView,
    project: Project,
    annotator: User,
    make_completions: MakeCompletions,
) -> None:
    (seed,) = make_completions(1)
    Completion.objects.bulk_create(
        Completion(
            project=project,
            prompt=seed.prompt,
            text="x",
            queued=True,
            queue_position=number,
            version="base" if number % 20 == 0 else "bot@1",
            source="import" if number % 20 == 0 else "demo",
            topic="travel" if number % 20 == 0 else "",
            contested=number % 20 == 0,
            unsure=number if number % 20 == 0 else None,
        )
        for number in range(800)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    part = view.of(project).in_queue_order(view.order_in(project))[0]
    plan = part.open_for(annotator, overlap=1)[:2].explain()
    assert index in plan, plan
    assert "Sort" not in plan, plan
    assert "TEMP B-TREE" not in plan, plan


def test_repeated_prompt_is_stored_once(project: Project) -> None:
    prompt = ("topic", [{"role": "user", "content": "Same?"}])
    assert prompts_add(project=project, prompts=[prompt, prompt], source=Source.IMPORT) == 1
