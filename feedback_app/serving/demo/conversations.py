"""Services of the demo's conversations and their turns."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from django.db import transaction

from feedback_app.feedback.models import BASE_VERSION, Completion, FollowUp, Project
from feedback_app.feedback.prompts.services import Message
from feedback_app.serving.demo.branches import branch_room, conversation_lock
from feedback_app.serving.demo.generation import (
    answer_stream,
    demo_sampling,
    member_is_active,
    streamed_store,
)
from feedback_app.serving.engine.client import AdapterBroken, Sampling, Streamed
from feedback_app.serving.follow_ups.services import follow_up_record
from feedback_app.serving.models import Conversation, Turn
from feedback_app.serving.releases.fallback import version_fallback
from feedback_app.serving.traffic_splits.assignments import (
    assignment_find,
    conversation_assignment,
    conversation_key,
    timed,
)
from feedback_app.web.errors import UserError

MESSAGE_LIMIT = 8_000
TURN_LIMIT = 40
#: The newest adapters in a menu; hundreds of options take longer than the rest of the page.
VERSIONS_OFFERED = 50


def version_of(conversation: Conversation) -> str:
    """Return the version that answers now: the chosen one, else that of the conversation's
    assignment in a traffic split, else the live one."""
    if conversation.choice != Conversation.LIVE:
        return conversation.choice
    assignment = assignment_find(conversation_key(conversation))
    return assignment.version if assignment is not None else conversation.project.live_version


def conversation_choose(*, conversation: Conversation, choice: str) -> None:
    """Set the version that answers from now on. Raises UserError for an unknown one."""
    if choice != Conversation.LIVE and not version_exists(conversation.project, choice):
        raise UserError("This project has no such version.")
    conversation.choice = choice
    if not conversation._state.adding:
        conversation.save(update_fields=["choice", "updated_at"])


def version_exists(project: Project, name: str) -> bool:
    """Return whether the demo may use the version of this name."""
    return name == BASE_VERSION or project.adapters.usable().filter(name=name).exists()


def choice_is_usable(conversation: Conversation) -> bool:
    """Return whether the version that a conversation has chosen was neither discarded nor locked
    since."""
    choice = conversation.choice
    return choice == Conversation.LIVE or version_exists(conversation.project, choice)


def choice_check(conversation: Conversation) -> None:
    """Raise UserError if the version that a conversation has chosen can be used no more."""
    if not choice_is_usable(conversation):
        raise UserError(f"{conversation.choice} was discarded: choose another version.")


def versions_offered(project: Project, *chosen: str) -> list[str]:
    """Return the versions of a menu: the base, what is chosen or live, and the newest adapters."""
    newest = project.adapters.usable().newest_first().values_list("name", flat=True)
    named = [*newest[:VERSIONS_OFFERED]]
    also = [
        name
        for name in dict.fromkeys((*chosen, project.live_version))
        if name not in (BASE_VERSION, Conversation.LIVE, *named)
    ]
    return [BASE_VERSION, *named, *also]


def turn_begin(*, conversation: Conversation, text: str) -> Turn:
    """Add a user message. Raises UserError if it is empty, too long or over the turn limit, or if
    the chosen version can be used no more.

    A new conversation is stored with its first turn while the engine reads it (`turn_stream`), so
    that the first token does not wait for the database.
    """
    text = text.strip()
    if not text:
        raise UserError("Write something first.")
    if len(text) > MESSAGE_LIMIT:
        raise UserError(f"A message has at most {MESSAGE_LIMIT:,} characters.")
    choice_check(conversation)
    if conversation._state.adding:
        conversation.title = text[:120]
        return Turn(conversation=conversation, position=0, user_message=text)
    with transaction.atomic():
        conversation_lock(conversation)
        conversation = Conversation.objects.get(pk=conversation.pk)
        last = conversation.turns.shown().last()
        position = 0 if last is None else (last.position or 0) + 1
        if position >= TURN_LIMIT:
            raise UserError("This conversation is full: start a new one.")
        branch_room(conversation)
        if not conversation.title:
            conversation.title = text[:120]
        conversation.save()
        return Turn.objects.create(
            conversation=conversation, parent=last, position=position, user_message=text
        )


def turn_keep(turn: Turn) -> None:
    """Store the first turn of a new conversation with the conversation, unless both are stored."""
    if turn._state.adding:
        with transaction.atomic():
            turn.conversation.save()
            turn.save()


def turn_again(*, turn: Turn, text: str | None = None) -> Turn:
    """Return a turn for another answer to the last one, with another question if `text` is given.

    The last turn is kept as another branch, unless it has no answer: then it is used again.
    Raises UserError.
    """
    if text is not None:
        text = text.strip()
        if not text or len(text) > MESSAGE_LIMIT:
            raise UserError(f"A message has 1 to {MESSAGE_LIMIT:,} characters.")
    choice_check(turn.conversation)
    with transaction.atomic():
        conversation_lock(turn.conversation)
        last = turn.conversation.turns.shown().last()
        if last is None or last.pk != turn.pk:
            raise UserError("Only the last message can be answered again.")
        turn.conversation.save(update_fields=["updated_at"])
        turn.position, turn.completion = last.position, last.completion
        if turn.completion_id is None:
            turn.user_message = text or turn.user_message
            turn.error = ""
            turn.save()
            return turn
        return turn_beside(turn, text or turn.user_message)


def turn_beside(turn: Turn, text: str) -> Turn:
    """Return a new turn in place of the last one, which gets a branch of its own."""
    conversation, position = turn.conversation, turn.position or 0
    branch_room(conversation)
    parent = conversation.turns.filter(position=position - 1).first() if position else None
    turn.parent, turn.position = parent, None
    turn.save(update_fields=["parent", "position"])
    return Turn.objects.create(
        conversation=conversation, parent=parent, position=position, user_message=text
    )


def turn_messages(turn: Turn) -> list[Message]:
    """Return the conversation up to and including this turn's question."""
    messages: list[Message] = []
    if turn.position:  # the first turn has no earlier ones: saves a query before the first token
        earlier = turn.conversation.turns.filter(position__lt=turn.position)
        for past in earlier.exclude(completion=None).select_related("completion"):
            messages.extend(past.as_messages())  # type: ignore[arg-type]
    messages.append({"role": "user", "content": turn.user_message})
    return messages


def sampling_of(conversation: Conversation) -> Sampling:
    """Return the project's sampling, with the temperature of this conversation if it has one."""
    usual = demo_sampling(conversation.project)
    if conversation.temperature is None:
        return usual
    return replace(usual, temperature=conversation.temperature)


def turn_stream(*, turn: Turn, may_read: Callable[[], bool] | None = None) -> Iterator[str]:
    """Yield the answer's text as the engine generates it, then store it as a Completion.

    A new turn is stored while the engine reads it, or when the engine fails. The stream ends when
    `may_read` returns False: by default, when the account is deactivated.
    Raises EngineError; the turn then holds the error and can be answered again.
    """
    conversation = turn.conversation
    messages = turn_messages(turn)
    assignment = conversation_assignment(conversation, begins=len(messages) == 1)
    if assignment is not None:
        version = assignment.version
    else:
        asked = conversation.choice
        version = conversation.project.live_version if asked == Conversation.LIVE else asked

    def store(streamed: Streamed) -> None:
        with transaction.atomic():
            # deleted meanwhile: its answer is not kept either
            if not Turn.objects.select_for_update().filter(pk=turn.pk).exists():
                return
            turn.completion = streamed_store(
                project=conversation.project,
                messages=messages,
                streamed=streamed,
                system_prompt=conversation.system_prompt,
                reader=conversation.user_id,
            )
            turn.save(update_fields=["completion"])
            if streamed.finish_reason == Completion.Finish.ABORTED and not turn.error:
                follow_up_record(
                    completion=turn.completion,
                    user_id=conversation.user_id,
                    kind=FollowUp.Kind.STOPPED,
                )

    def fail(why: str) -> None:
        turn_keep(turn)
        turn.error = why
        Turn.objects.filter(pk=turn.pk).update(error=why)

    def fall_back(error: AdapterBroken) -> str:
        return version_fallback(conversation.project, version=version, error=error)

    pieces = answer_stream(
        project=conversation.project,
        messages=messages,
        version=version,
        sampling=sampling_of(conversation),
        system_prompt=conversation.system_prompt,
        may_read=may_read or member_is_active(conversation.user_id, conversation.project),
        store=store,
        opened=lambda: turn_keep(turn),
        fail=fail,
        fallback=fall_back if conversation.choice == Conversation.LIVE else None,
    )
    return timed(pieces, assignment=assignment, completion=lambda: turn.completion)
