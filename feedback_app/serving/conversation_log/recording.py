"""The conversations of a product's users with the gateway, which sends them as a whole each time.

A request continues the turn whose question and answer it repeats; any other begins a conversation.
"""

from collections.abc import Sequence

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project, Source
from feedback_app.feedback.prompts.services import Message, content_hash
from feedback_app.serving.demo.branches import BRANCHED_LIMIT, branch_show
from feedback_app.serving.models import Conversation, Turn

TITLE = 120


def gateway_turn_record(
    *,
    project: Project,
    user: User,
    messages: Sequence[Message],
    completion: Completion,
    choice: str,
) -> Turn:
    """Store a gateway's question and answer as a turn. Call it in the answer's transaction."""
    text = messages[-1]["content"]
    before = turn_before(project=project, user=user, messages=messages)
    if before is None:
        conversation = Conversation.objects.create(
            project=project, user=user, choice=choice, title=text[:TITLE]
        )
        return Turn.objects.create(
            conversation=conversation, position=0, user_message=text, completion=completion
        )
    conversation = before.conversation
    conversation.save(update_fields=["updated_at"])
    last = conversation.turns.shown().last()
    goes_on = last is not None and last.pk == before.pk
    turn = Turn.objects.create(
        conversation=conversation,
        parent=before,
        # of `last`, which was read when the conversation was locked
        position=(last.position or 0) + 1 if last is not None and goes_on else None,
        user_message=text,
        completion=completion,
    )
    if not goes_on:
        branch_show(turn=turn)
    return turn


def turn_before(*, project: Project, user: User, messages: Sequence[Message]) -> Turn | None:
    """Return the person's newest turn with these messages but the last, in a conversation that
    has room; None if there is none. Its conversation is locked."""
    if len(messages) < 3:
        return None
    found = (
        Turn.objects.select_related("conversation")
        .filter(
            conversation__project=project,
            conversation__user=user,
            conversation__removed_at=None,
            completion__project=project,
            completion__source=Source.API,
            completion__prompt__project=project,
            completion__prompt__content_hash=content_hash(messages[:-2]),
            completion__text=messages[-2]["content"],
        )
        .order_by("-pk")
        .first()
    )
    if found is None:
        return None
    locked = Conversation.objects.select_for_update(no_key=True).kept()
    conversation = locked.filter(pk=found.conversation_id).first()
    if conversation is None:
        return None
    if conversation.turns.order_by("pk")[BRANCHED_LIMIT - 1 : BRANCHED_LIMIT].exists():
        return None
    found.conversation = conversation
    return found


def gateway_turn_remove(completion: Completion) -> None:
    """Delete the turn of an answer that no client knows of, and its conversation if it is empty."""
    for turn in Turn.objects.filter(completion=completion).select_related("conversation"):
        turn.delete()
        Conversation.objects.filter(pk=turn.conversation_id, turns=None).delete()
