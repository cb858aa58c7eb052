"""Takes a person's votes out of a project, and their examples become what the others say."""

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

CHUNK = 500


@dataclass(frozen=True)
class VotesErased:
    """What went: votes, examples that are gone with them, examples that say something else now."""

    votes: int
    gone: int
    changed: int


def votes_erase(*, user: User, project: Project, note: Callable[[VotesErased], object]) -> None:
    """A chunk a transaction, so that annotators wait for none of it for long; `note` is told of
    each within it. Broken off, it is simply called again: what is done is done."""
    imports_keep(user=user, project=project)
    mine = Vote.objects.filter(user=user, project=project).order_by("completion")
    while ids := list(mine.values_list("completion", flat=True)[:CHUNK]):
        with write_transaction():
            note(chunk_erase(user=user, ids=ids))
    with write_transaction():
        for model in (VoteEvent, Skip, Lease):  # undone votes left events, too
            model._default_manager.filter(user=user, completion__project=project).delete()
        for judged in (GoldAnswer, Pause):
            judged._default_manager.filter(user=user, project=project).delete()


def imports_keep(*, user: User, project: Project) -> None:
    """Hands what the person imported to an account that is nobody: the labels of a file are not
    the opinion of who uploaded it."""
    jobs = ImportJob.objects.filter(by=user, project=project)
    labels = Vote.objects.filter(user=user, project=project, source=Source.IMPORT)
    with write_transaction():
        if jobs.exists() or labels.exists():
            nobody = User.objects.create_service(name="Import")
            jobs.update(by=nobody)
            labels.update(user=nobody)
            VoteEvent.objects.filter(
                user=user, completion__project=project, source=Source.IMPORT
            ).update(user=nobody)


def chunk_erase(*, user: User, ids: list[int]) -> VotesErased:
    """Some of the votes. Call it in a transaction."""
    rows = Completion.objects.select_related("prompt").defer("token_ids", "prompt_token_ids")
    completions = list(rows.select_for_update(of=("self",)).filter(pk__in=ids).order_by("pk"))
    VoteEvent.objects.filter(completion__in=ids, user=user).delete()
    votes = Vote.objects.filter(completion__in=ids, user=user).delete()[0]
    gone, changed = examples_refresh_locked(completions)
    return VotesErased(votes=votes, gone=len(gone), changed=changed)
