"""Deletion of a person's votes from a project; the examples follow the remaining votes."""

from collections.abc import Callable
from dataclasses import dataclass

from feedback_app.accounts.models import User
from feedback_app.db.write_lock import write_transaction
from feedback_app.feedback.examples.services import examples_refresh_locked
from feedback_app.feedback.models import (
    Completion,
    GoldAnswer,
    ImportJob,
    Lease,
    Pause,
    Project,
    Skip,
    Source,
    Vote,
    VoteEvent,
)
from feedback_app.training.forgetting.snapshots import snapshots_forget
from feedback_app.training.models import PairVote

CHUNK = 500


@dataclass(frozen=True)
class VotesErased:
    """Numbers of deleted votes, deleted examples and changed examples."""

    votes: int
    gone: int
    changed: int


def votes_erase(*, user: User, project: Project, note: Callable[[VotesErased], object]) -> None:
    """Delete in chunks, a transaction each, so that annotators do not wait; call `note` in each.

    An interrupted deletion is resumed by calling this again.
    """
    imports_keep(user=user, project=project)
    mine = Vote.objects.filter(user=user, project=project).order_by("completion")
    while ids := list(mine.values_list("completion", flat=True)[:CHUNK]):
        with write_transaction():
            note(chunk_erase(user=user, ids=ids))
    undone = VoteEvent.objects.filter(user=user, completion__project=project)
    while ids := sorted(set(undone.values_list("completion", flat=True)[:CHUNK])):
        with write_transaction():
            events_erase(user=user, completions=completions_locked(ids))
    with write_transaction():
        for model in (Skip, Lease):
            model._default_manager.filter(user=user, completion__project=project).delete()
        PairVote.objects.filter(user=user, pair__batch__project=project).delete()
        for judged in (GoldAnswer, Pause):
            judged._default_manager.filter(user=user, project=project).delete()


def imports_keep(*, user: User, project: Project) -> None:
    """Move imported votes to a service account: a file's labels are not the uploader's opinion."""
    jobs = ImportJob.objects.filter(by=user, project=project)
    labels = Vote.objects.filter(user=user, project=project, source=Source.IMPORT)
    with write_transaction():
        if jobs.exists() or labels.exists():
            service = User.objects.create_service(name="Import")
            jobs.update(by=service)
            labels.update(user=service)
            VoteEvent.objects.filter(
                user=user, completion__project=project, source=Source.IMPORT
            ).update(user=service)


def chunk_erase(*, user: User, ids: list[int]) -> VotesErased:
    """Delete the votes on these completions. Call it in a transaction."""
    completions = completions_locked(ids)
    events_erase(user=user, completions=completions)
    votes = Vote.objects.filter(completion__in=ids, user=user).delete()[0]
    gone, changed = examples_refresh_locked(completions)
    return VotesErased(votes=votes, gone=len(gone), changed=changed)


def completions_locked(ids: list[int]) -> list[Completion]:
    """Lock these completions, in the order of their ids."""
    rows = Completion.objects.select_related("prompt", "gold_item", "adjudication")
    light = rows.defer("token_ids", "prompt_token_ids").select_for_update(of=("self",))
    return list(light.filter(pk__in=ids).order_by("pk"))


def events_erase(*, user: User, completions: list[Completion]) -> None:
    """Delete the person's vote events on locked completions, and what they did to snapshots."""
    snapshots_forget(user=user, completions=completions)
    VoteEvent.objects.filter(completion__in=completions, user=user).delete()
