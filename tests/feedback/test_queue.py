"""Handing out items: nobody gets what somebody else holds, and empty always has a reason."""

import datetime as dt

import pytest
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Lease, Project, Sampling, Source, Split, Verdict
from feedback_app.feedback.selectors import empty_queue, queue_progress
from feedback_app.feedback.services import (
    Answer,
    completion_create,
    prompts_add,
    split_of,
    vote_cast,
    vote_undo,
)
from feedback_app.feedback.services_queue import item_skip, items_hand_out
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db


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


def test_expired_lease_frees_the_item(
    project: Project, annotator: User, second_annotator: User, make_completions: MakeCompletions
) -> None:
    (only,) = make_completions(1)
    items_hand_out(project=project, by=annotator)
    assert items_hand_out(project=project, by=second_annotator) == []

    Lease.objects.update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    assert items_hand_out(project=project, by=second_annotator) == [only]


def test_overlap_gives_an_item_to_so_many_people(
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


def test_undone_item_is_shown_before_the_others(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    make_completions(5)
    first = items_hand_out(project=project, by=annotator)[0]
    vote_cast(completion=first, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    assert items_hand_out(project=project, by=annotator)[0] != first

    vote_undo(completion=first, by=annotator, source=Source.ANNOTATE)
    assert items_hand_out(project=project, by=annotator)[0] == first


def test_skipped_item_goes_to_somebody_else(
    project: Project, annotator: User, second_annotator: User, make_completions: MakeCompletions
) -> None:
    (only,) = make_completions(1)
    items_hand_out(project=project, by=annotator)
    item_skip(completion=only, by=annotator)
    assert items_hand_out(project=project, by=annotator) == []
    assert items_hand_out(project=project, by=second_annotator) == [only]


def test_first_answers_of_all_prompts_come_before_second_ones(
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


def test_empty_queue_says_why(
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


def test_prompt_twice_is_one_prompt(project: Project) -> None:
    prompt = ("topic", [{"role": "user", "content": "Same?"}])
    assert prompts_add(project=project, prompts=[prompt, prompt], source=Source.IMPORT) == 1


def test_split_is_decided_by_the_prompt_alone_near_its_share() -> None:
    digests = [f"{number * 2654435761 % 2**32:08x}" for number in range(2000)]
    heldout = [split_of(digest, heldout_percent=20) == Split.HELDOUT for digest in digests]
    assert 0.15 < sum(heldout) / len(heldout) < 0.25
    assert split_of(digests[0], heldout_percent=20) == split_of(digests[0], heldout_percent=20)
