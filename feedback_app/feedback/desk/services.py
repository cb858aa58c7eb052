"""Verdicts, skips and undo at the annotation page, on items that were handed out."""

from collections.abc import Collection
from dataclasses import dataclass

from feedback_app.accounts.models import User
from feedback_app.db.write_lock import write_transaction
from feedback_app.feedback.flags.services import flag_check
from feedback_app.feedback.models import Completion, Project, Source, Vote
from feedback_app.feedback.queue.services import QueueView, item_skip, items_take
from feedback_app.feedback.votes.corrections import correction_check, correction_write
from feedback_app.feedback.votes.counts import rate_limit_check, rate_limit_check_noted
from feedback_app.feedback.votes.rows import handed_out_lock
from feedback_app.feedback.votes.services import VoteInput, vote_undo, vote_write
from feedback_app.feedback.webhooks.events import vote_event_write


@dataclass(frozen=True)
class Step:
    """The result of a verdict: the vote, whether it is new, and the items that were taken."""

    vote: Vote
    first: bool
    items: list[Completion]


def vote_and_take_next(
    *,
    project: Project,
    pk: int,
    vote_input: VoteInput,
    by: User,
    view: QueueView | None,
    replaces: bool,
    correction: str | None = None,
    elsewhere: Collection[int] = (),
) -> Step:
    """Store a verdict and take the next items of the view, if there is one, in one transaction.

    `correction` is the text that the person wrote in place of the answer, with a down. `elsewhere`
    are the items that the person's other tabs show.

    The vote locks one row and the queue skips locked rows, so concurrent calls do not wait for each
    other. Raise Completion.DoesNotExist, UserError, RateLimited, or VoteKept for a verdict that
    contradicts an earlier one of the person without meaning to replace it.
    """
    # a response with the next items notes who has reached the limit, so few votes need the count
    check = rate_limit_check if view is None else rate_limit_check_noted
    check(project=project, by=by, completion=pk)
    text = correction_check(correction, vote_input.verdict)
    changes = vote_input.changes(project)
    with write_transaction():
        locked = handed_out_lock(pk, project=project, by=by, voting=True)
        vote, first = vote_write(
            locked, by=by, source=Source.ANNOTATE, changes=changes, replaces=replaces
        )
        vote_event_write(project, vote)
        if text is not None:
            correction_write(locked, project=project, text=text, by=by, source=Source.ANNOTATE)
        if view is None:
            return Step(vote, first, [])
        items = items_take(project=project, by=by, view=view, elsewhere=elsewhere)
        return Step(vote, first, items)


def skip_handed_out(*, project: Project, pk: int, by: User, flag: bool, reason: str) -> None:
    """Skip or flag an item.

    Raise Completion.DoesNotExist, or UserError beyond the limits of flags.
    """
    with write_transaction():
        locked = handed_out_lock(pk, project=project, by=by, voting=False)
        if flag:
            flag_check(completion=locked, by=by)
        item_skip(completion=locked, by=by, flag=flag, reason=reason)


def undo_handed_out(*, project: Project, pk: int, by: User) -> bool:
    """Undo a vote, skip or flag; return False if there was none. Raise Completion.DoesNotExist."""
    with write_transaction():
        locked = handed_out_lock(pk, project=project, by=by, voting=False)
        return vote_undo(completion=locked, by=by, source=Source.ANNOTATE)
