"""Taking back a correction, when the vote that it came with is changed or undone."""

from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.examples.services import examples_refresh
from feedback_app.feedback.models import Completion, Correction, Vote, VoteEvent


def correction_withdraw(*, original: Completion, by: User) -> bool:
    """Take a person's vote from the text that they wrote in place of a locked answer.

    Its example goes with the vote; runs that have used the text keep it. Return False if there was
    no correction. Call it in the transaction that changes the vote.
    """
    standing = Correction.objects.filter(original=original, user=by, withdrawn_at=None)
    correction = standing.first()
    if correction is None:
        return False
    votes = Vote.objects.filter(completion=correction.completion_id, user=by)
    for vote in votes:
        vote.delete()
        VoteEvent.objects.create(
            completion_id=correction.completion_id, user=by, verdict="", source=vote.source
        )
    examples_refresh([correction.completion_id])
    standing.update(withdrawn_at=timezone.now())
    return True
