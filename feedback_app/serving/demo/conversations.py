"""What can happen to the demo's conversations and their turns."""

from collections.abc import Callable, Iterator

from django.db import transaction
from django.db.models import Max

from feedback_app.feedback.models import BASE_VERSION, Project
from feedback_app.feedback.prompts.services import Message
from feedback_app.serving.demo.generation import active_member, answer_stream, streamed_store
from feedback_app.serving.engine.client import AdapterBroken, Streamed
from feedback_app.serving.models import Conversation, Turn
from feedback_app.serving.releases.fallback import version_fallback
from feedback_app.serving.traffic_splits.assignments import (
    conversation_key,
    conversation_seat,
    seat_find,
    watched,
)
from feedback_app.web.errors import UserError

MESSAGE_LIMIT = 8_000
TURN_LIMIT = 40


def version_of(conversation: Conversation) -> str:
    """What answers this conversation now: the picked version, or else that of its seat in a split,
    or else whatever is live."""
    if conversation.choice != Conversation.LIVE:
        return conversation.choice
    seat = seat_find(conversation_key(conversation))
    return seat.version if seat is not None else conversation.project.live_version


def conversation_choose(*, conversation: Conversation, choice: str) -> None:
    """Picks the version that answers from now on."""
    known = {Conversation.LIVE, BASE_VERSION, *version_names(conversation.project)}
    if choice not in known:
        raise UserError("This project has no such version.")
    conversation.choice = choice
    if not conversation._state.adding:
        conversation.save(update_fields=["choice", "updated_at"])


def version_names(project: Project) -> list[str]:
    """Adapters that the demo may pick, newest first."""
    return list(project.adapters.usable().newest_first().values_list("name", flat=True))


def turn_begin(*, conversation: Conversation, text: str) -> Turn:
    """Adds what the user said. Raises UserError if it is empty, too long or one too many.

    A conversation that is not stored yet begins with it, once the engine reads it (`turn_stream`):
    nobody waits for the database to hear the first word.
    """
    text = text.strip()
    if not text:
        raise UserError("Write something first.")
    if len(text) > MESSAGE_LIMIT:
        raise UserError(f"A message has at most {MESSAGE_LIMIT:,} characters.")
    if conversation._state.adding:
        conversation.title = text[:120]
        return Turn(conversation=conversation, position=0, user_message=text)
    with transaction.atomic():
        conversation = Conversation.objects.select_for_update().get(pk=conversation.pk)
        last = conversation.turns.aggregate(last=Max("position"))["last"]
        position = 0 if last is None else last + 1
        if position >= TURN_LIMIT:
            raise UserError("This conversation is full: start a new one.")
        if not conversation.title:
            conversation.title = text[:120]
        conversation.save()
        return Turn.objects.create(conversation=conversation, position=position, user_message=text)


def turn_keep(turn: Turn) -> None:
    """Stores a turn that begins a conversation, and the conversation, unless they are."""
    if turn._state.adding:
        with transaction.atomic():
            turn.conversation.save()
            turn.save()


def turn_again(*, turn: Turn, text: str | None = None) -> Turn:
    """Prepares the last turn for another answer, with another question if `text` is given."""
    if turn.conversation.turns.filter(position__gt=turn.position).exists():
        raise UserError("Only the last message can be answered again.")
    if text is not None:
        text = text.strip()
        if not text or len(text) > MESSAGE_LIMIT:
            raise UserError(f"A message has 1 to {MESSAGE_LIMIT:,} characters.")
        turn.user_message = text
    turn.completion = None
    turn.error = ""
    turn.save()
    return turn


def turn_messages(turn: Turn) -> list[Message]:
    """The conversation up to and with this turn's question."""
    messages: list[Message] = []
    if turn.position:  # somebody waits for the first word: nothing is asked in vain
        earlier = turn.conversation.turns.filter(position__lt=turn.position)
        for past in earlier.exclude(completion=None).select_related("completion"):
            messages.extend(past.as_messages())  # type: ignore[arg-type]
    messages.append({"role": "user", "content": turn.user_message})
    return messages


def turn_stream(*, turn: Turn, may_read: Callable[[], bool] | None = None) -> Iterator[str]:
    """Yields the answer's text as the engine writes it, then stores it as a Completion.

    A question that is not stored yet is while the engine reads it, or when the engine fails. It
    ends when `may_read` says no: by default, when the account is deactivated.
    Raises EngineError; the turn then says so and can be answered again.
    """
    conversation = turn.conversation
    messages = turn_messages(turn)
    seat = conversation_seat(conversation, begins=len(messages) == 1)
    if seat is not None:
        version = seat.version
    else:
        asked = conversation.choice
        version = conversation.project.live_version if asked == Conversation.LIVE else asked

    def store(streamed: Streamed) -> None:
        with transaction.atomic():
            turn.completion = streamed_store(
                project=conversation.project, messages=messages, streamed=streamed
            )
            turn.save(update_fields=["completion"])

    def fail(why: str) -> None:
        turn_keep(turn)
        Turn.objects.filter(pk=turn.pk).update(error=why)

    def fall_back(error: AdapterBroken) -> str:
        return version_fallback(conversation.project, version=version, error=error)

    pieces = answer_stream(
        project=conversation.project,
        messages=messages,
        version=version,
        may_read=may_read or active_member(conversation.user_id, conversation.project),
        store=store,
        opened=lambda: turn_keep(turn),
        fail=fail,
        otherwise=fall_back if conversation.choice == Conversation.LIVE else None,
    )
    return watched(pieces, seat=seat, completion=lambda: turn.completion)
