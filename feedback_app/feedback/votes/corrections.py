"""Corrections: the answer as it should have been, written by a person."""

from typing import Any

from feedback_app.accounts.models import User
from feedback_app.db.write_lock import write_transaction
from feedback_app.feedback.models import (
    EDITED_VERSION,
    Completion,
    Correction,
    Project,
    Source,
    Verdict,
    Vote,
)
from feedback_app.feedback.prompts.completions import Answer, completion_create, storable
from feedback_app.feedback.votes.rows import completion_lock
from feedback_app.feedback.votes.services import VoteInput, vote_cast, vote_write
from feedback_app.feedback.votes.withdrawal import correction_withdraw
from feedback_app.feedback.webhooks.events import vote_event_write
from feedback_app.web.errors import UserError

#: Characters; the longest answers of a model have fewer.
LIMIT = 20_000
#: How often a person may rewrite an answer: each text is a row that stays.
TIMES = 10


def correction_check(text: str | None, verdict: Verdict) -> str | None:
    """Return the text to store, or None if there is none. Raise UserError for an invalid one."""
    if text is None or not text.strip():
        return None
    if verdict != Verdict.DOWN:
        raise UserError("A correction goes with down: it replaces the answer.")
    if len(text) > LIMIT:
        raise UserError(f"A correction has at most {LIMIT:,} characters.")
    return storable(text.strip())


def correction_write(
    locked: Completion, *, project: Project, text: str, by: User, source: Source
) -> Completion | None:
    """Store what a person wrote in place of a locked answer that they have voted down.

    The text becomes a completion of the version EDITED_VERSION with the person's up. One that they
    wrote earlier is withdrawn, unless it is the same. Return None if nothing was changed in the
    answer. Raise UserError after TIMES corrections. Call it in the transaction of the vote.
    """
    if text == locked.text.strip():
        return None
    known = Correction.objects.filter(original=locked, user=by, withdrawn_at=None)
    earlier = known.select_related("completion").first()
    if earlier is not None and earlier.completion.text == text:
        return earlier.completion
    if Correction.objects.filter(original=locked, user=by).count() >= TIMES:
        raise UserError(f"You have corrected this answer {TIMES} times: the last text stays.")
    correction_withdraw(original=locked, by=by)
    written = completion_create(
        project=project,
        prompt=locked.prompt,
        answer=Answer(
            text=text,
            version=EDITED_VERSION,
            finish_reason=Completion.Finish.STOP,
            prompt_token_ids=None,
            token_ids=None,
        ),
        source=source,
        system_prompt=locked.system_prompt,
    )
    Correction.objects.create(original=locked, completion=written, user=by)
    own = completion_lock(written.pk, by=by)
    own.project = project
    changes = VoteInput(Verdict.UP).changes(project)
    vote, _ = vote_write(own, by=by, source=source, changes=changes)
    vote_event_write(project, vote)
    return written


def vote_cast_corrected(
    *, completion: Completion, correction: str | None, verdict: Verdict, by: User, **vote: Any
) -> Vote:
    """Do what `vote_cast` does, and store a correction with it, in one transaction.

    Raise UserError for a correction without a down.
    """
    text = correction_check(correction, verdict)
    if text is None:
        return vote_cast(completion=completion, verdict=verdict, by=by, **vote)
    with write_transaction():
        cast = vote_cast(completion=completion, verdict=verdict, by=by, **vote)
        locked = completion_lock(completion.pk, by=by)
        correction_write(
            locked, project=completion.project, text=text, by=by, source=vote["source"]
        )
        return cast
