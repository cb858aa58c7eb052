"""Follow-ups are recorded here alone: of members in the demo, and of a product's users.

Nothing is stored while a project has them switched off, nor of the visitors of share links, who are
not informed of it.
"""

import re
from difflib import SequenceMatcher

from feedback_app.feedback.models import Completion, FollowUp, Project
from feedback_app.serving.models import ShareVisitor, Turn

#: The least similarity of two questions, by words, of which the later asks the earlier again.
LEAST_SIMILARITY = 0.5
#: Words of a question that are compared.
MOST_WORDS = 200
#: A message of more words says more than thanks.
THANKS_WORDS = 8
_THANKS = re.compile(
    r"\b(thanks|thank you|thx|danke|dankeschön|merci|gracias|grazie|obrigad[oa]|bedankt|tack)\b",
    re.IGNORECASE,
)


def follow_up_record(*, completion: Completion, user_id: int, kind: FollowUp.Kind) -> None:
    """Store that a reader did this after an answer; a second time changes nothing."""
    if not completion.project.follow_ups:
        return
    if ShareVisitor.objects.filter(user=user_id).exists():
        return
    row = FollowUp(
        completion=completion, user_id=user_id, project_id=completion.project_id, kind=kind
    )
    FollowUp.objects.bulk_create([row], ignore_conflicts=True)


def question_followed(*, project: Project, before: Turn | None, text: str) -> None:
    """Record what the next message of a conversation says about the answer before it: thanks, or
    the same question in other words."""
    if not project.follow_ups or before is None or before.completion is None:
        return
    kind = said_by(text, after=before.user_message)
    if kind is not None:
        completion = before.completion
        completion.project = project
        follow_up_record(completion=completion, user_id=before.conversation.user_id, kind=kind)


def said_by(text: str, *, after: str) -> FollowUp.Kind | None:
    """Return what a message says about the answer to the question before it, None for nothing."""
    if len(text.split()) <= THANKS_WORDS and _THANKS.search(text):
        return FollowUp.Kind.THANKED
    return FollowUp.Kind.REPHRASED if similarity(text, after) >= LEAST_SIMILARITY else None


def similarity(one: str, other: str) -> float:
    """Return how much of two texts are the same words in the same order, from 0 to 1 (Ratcliff and
    Obershelp, as difflib has it)."""
    first, second = (re.findall(r"\w+", text.lower())[:MOST_WORDS] for text in (one, other))
    if not first or not second:
        return 0.0
    return SequenceMatcher(a=first, b=second, autojunk=False).ratio()
