"""Casting, changing and undoing votes."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.db.write_lock import write_transaction
from feedback_app.feedback.examples.services import example_refresh
from feedback_app.feedback.gold.pauses import gold_answer_record
from feedback_app.feedback.models import (
    Completion,
    Project,
    Skip,
    Source,
    Verdict,
    Vote,
    VoteEvent,
)
from feedback_app.feedback.queue.services import UNDO_SKIP, lease_release, lease_take, slot_free
from feedback_app.feedback.votes.counts import (
    rate_limit_check,
    rate_limit_note_undo,
    vote_counts_forget,
)
from feedback_app.feedback.votes.rows import completion_lock, is_hasty, vote_first
from feedback_app.feedback.votes.withdrawal import correction_withdraw
from feedback_app.feedback.webhooks.events import vote_event_write
from feedback_app.web.errors import UserError

COMMENT_LIMIT = 2_000


class VoteKept(UserError):
    """The person has judged the item with another verdict, in another tab; that one is kept."""

    def __init__(self, vote: Vote) -> None:
        kept = vote.get_verdict_display()
        super().__init__(
            f"You have already judged this answer {kept}, perhaps in another tab. {kept} was kept; "
            "you can change it under 'Your last ten'."
        )


@dataclass(frozen=True)
class VoteInput:
    """The input of a vote; None leaves a field as it is."""

    verdict: Verdict
    reasons: Sequence[str] | None = None
    comment: str | None = None

    def changes(self, project: Project) -> dict[str, object]:
        """Return the fields of a Vote to set. Raise UserError for invalid input."""
        changes: dict[str, object] = {
            "verdict": self.verdict,
            "guidelines_number": project.guidelines_number,
            # voting again makes the vote count again
            "set_aside_id": None,
        }
        if self.reasons is not None:
            allowed = {chip["key"] for chip in project.reasons.get(self.verdict, [])}
            unknown = sorted(set(self.reasons) - allowed)
            if unknown:
                raise UserError(f"Unknown reasons for {self.verdict}: {', '.join(unknown)}.")
            changes["reasons"] = list(dict.fromkeys(self.reasons))
        if self.comment is not None:
            if len(self.comment) > COMMENT_LIMIT:
                raise UserError(f"A comment has at most {COMMENT_LIMIT:,} characters.")
            changes["comment"] = self.comment
        return changes


def vote_cast(
    *,
    completion: Completion,
    verdict: Verdict,
    by: User,
    source: Source,
    reasons: Sequence[str] | None = None,
    comment: str | None = None,
) -> Vote:
    """Store one person's verdict, or change it. Reasons and comment stay if they are None.

    Raise UserError for invalid input and RateLimited beyond the project's hourly limit.
    """
    changes = VoteInput(verdict, reasons, comment).changes(completion.project)
    if source == Source.IMPORT:
        changes["guidelines_number"] = 0  # given under other guidelines
    else:
        rate_limit_check(project=completion.project, by=by, completion=completion.pk)
    with write_transaction():
        locked = completion_lock(completion.pk, by=by)
        vote, _ = vote_write(locked, by=by, source=source, changes=changes)
        vote_event_write(completion.project, vote)
        return vote


def vote_write(
    locked: Completion,
    *,
    by: User,
    source: Source,
    changes: dict[str, object],
    replaces: bool = True,
) -> tuple[Vote, bool]:
    """Store a vote on a completion that this transaction has locked; return it and whether it is
    new.

    Raise VoteKept for another verdict than the person's present one, unless it `replaces` that.
    """
    fresh = Vote(completion=locked, user=by, project_id=locked.project_id, source=source)
    fresh.hasty = source == Source.ANNOTATE and is_hasty(locked)
    for field, value in changes.items():
        setattr(fresh, field, value)
    # no vote counts: usually this is the first vote, which the statement itself verifies
    if locked.vote_count == 0 and vote_first(completion=locked, vote=fresh):
        if locked.gold and source == Source.ANNOTATE:
            gold_answer_record(fresh)
        return fresh, True
    known = Vote.objects.filter(completion=locked, user=by).first()
    first = known is None
    vote = known or fresh
    if known is not None:
        counts = known.set_aside_id is None
        if not replaces and counts and known.verdict != changes["verdict"]:
            raise VoteKept(known)
        if known.verdict != changes["verdict"] and "reasons" not in changes:
            changes["reasons"] = []  # reasons belong to a verdict
        if all(getattr(known, field) == value for field, value in changes.items()):
            lease_release(completion=locked, by=by)
            return known, False  # a retry or a double click
    turned = first or vote.verdict != changes["verdict"] or vote.set_aside_id is not None
    for field, value in changes.items():
        setattr(vote, field, value)
    vote.save()
    if turned:
        VoteEvent.objects.create(
            completion=locked,
            user=by,
            verdict=vote.verdict,
            source=source,
            guidelines_number=vote.guidelines_number,
        )
        example_refresh(completion=locked)
        if vote.verdict == Verdict.UP and not first:
            correction_withdraw(original=locked, by=by)
        if first and locked.gold and source == Source.ANNOTATE:
            gold_answer_record(vote)
    # an item that the person holds was not skipped
    if not lease_release(completion=locked, by=by):
        Skip.objects.filter(completion=locked, user=by, flag=False).delete()
    return vote, first


def vote_undo(*, completion: Completion, by: User, source: Source) -> bool:
    """Delete the person's vote, or a skip of the last UNDO_SKIP, and put the item back on their
    screen.

    Return False if there was neither.
    """
    with write_transaction():
        locked = completion_lock(completion.pk, by=by)
        undone = Vote.objects.filter(completion=locked, user=by).first()
        if undone is not None:
            undone.delete()
            VoteEvent.objects.create(completion=locked, user=by, verdict="", source=source)
            example_refresh(completion=locked)
            if undone.verdict == Verdict.DOWN:
                correction_withdraw(original=locked, by=by)
            vote_counts_forget(project=completion.project, user=by)
        skips = Skip.objects.filter(completion=locked)
        skipped = skips.filter(user=by, created_at__gt=timezone.now() - UNDO_SKIP).first()
        if skipped is not None:
            skipped.delete()
            if skipped.flag:
                locked.flagged = skips.filter(flag=True).exists()
                locked.save(update_fields=["flagged"])
        # an answer of the demo was on no screen, and would show that it is gold
        at_desk = skipped is not None or (undone is not None and undone.source == Source.ANNOTATE)
        if at_desk and (locked.gold or slot_free(completion=locked, by=by)):
            lease_take(completion=locked, by=by, front=True)
    if undone is not None:
        rate_limit_note_undo(project=completion.project, by=by)
    return undone is not None or skipped is not None
