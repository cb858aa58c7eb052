"""An answer as server-sent events: `turn`, `piece`s, then `done` or `error`."""

import json
from collections.abc import Callable, Iterator

from django.http import StreamingHttpResponse
from django.urls import reverse
from django.utils.html import format_html

from feedback_app.serving.demo.conversations import turn_stream
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.models import Turn

#: What a reader gets whose conversation is deleted while it is answered.
DELETED = "This conversation was deleted."
#: A comment: browsers ignore it, and it keeps proxies from closing the stream.
WAITING = ": waiting\n\n"


def event(name: str, **data: object) -> str:
    """Return one event of a text/event-stream."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def conversation_url(turn: Turn) -> str:
    """Return the URL of the conversation, which a browser that has just begun it does not know."""
    conversation = turn.conversation
    return reverse("conversation", args=[conversation.project.slug, conversation.pk])


def turn_events(
    turn: Turn,
    *,
    rendered: Callable[[Turn], str],
    url: str = "",
    may_read: Callable[[], bool] | None = None,
    message_of: Callable[[EngineError], str] = str,
) -> Iterator[str]:
    """Stream the turn's answer. Closing the iterator stops the engine and keeps the partial answer.

    `url` is the page that shows the conversation, if not its own; `message_of` returns the message
    that the reader gets for an error.
    """
    # sent once the turn is stored: the reader's next message goes to this URL
    begun = event("turn", url=url or conversation_url(turn))
    pieces = turn_stream(turn=turn, may_read=may_read)
    try:
        for piece in pieces:
            if begun:
                yield begun
                begun = ""
            yield event("piece", text=piece) if piece else WAITING
    except EngineError as error:
        yield begun + ended(turn, "error", rendered, message=message_of(error))
        return
    finally:
        pieces.close()  # type: ignore[attr-defined]
    yield begun + ended(turn, "done", rendered)


def ended(turn: Turn, name: str, rendered: Callable[[Turn], str], **data: object) -> str:
    """Return the last event, with the turn as it is stored now."""
    try:
        turn.refresh_from_db()
    except Turn.DoesNotExist:
        html = format_html('<div class="reply"><p class="muted">{}</p></div>', DELETED)
        return event("error", message=DELETED, html=html)
    return event(name, completion=turn.completion_id, html=rendered(turn), **data)


def event_stream(events: Iterator[str]) -> StreamingHttpResponse:
    """Return the response, marked so that proxies do not buffer it."""
    response = StreamingHttpResponse(events, content_type="text/event-stream")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response
