"""What one verdict at the annotator's desk does: the vote, and the next items."""

from dataclasses import dataclass

from feedback_app.accounts.models import User
from feedback_app.db.write_lock import write_transaction
from feedback_app.feedback.models import Completion, Project, Source, Vote
from feedback_app.feedback.queue.services import QueueView, items_take
from feedback_app.feedback.votes.rate_limit import rate_limit_check_noted
from feedback_app.feedback.votes.rows import completion_lock
from feedback_app.feedback.votes.services import Ballot, vote_write
from feedback_app.feedback.webhooks.events import vote_event_write


@dataclass(frozen=True)
class Step:
    """What a verdict at the desk led to: the vote, whether it is their first on this answer, and
    the items that they hold now."""

    vote: Vote
    first: bool
    items: list[Completion]


def vote_and_take_next(
    *, project: Project, pk: int, ballot: Ballot, by: User, view: QueueView
) -> Step:
    """A verdict at the desk and the next items in one transaction: one commit a cycle.

    The vote holds one row and the queue passes over rows under other hands, so no two of these
    wait for each other. Raises Completion.DoesNotExist, UserError or RateLimited.
    """
    rate_limit_check_noted(project=project, by=by, completion=pk)
    changes = ballot.changes(project)
    with write_transaction():
        locked = completion_lock(pk, by=by, project=project)
        vote, first = vote_write(locked, by=by, source=Source.ANNOTATE, changes=changes)
        vote_event_write(project, vote)
        return Step(vote, first, items_take(project=project, by=by, view=view))
