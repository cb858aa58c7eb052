"""Response payloads in OpenAI's format: complete, and as the events of a stream."""

import json
import time
from collections.abc import Generator, Iterator
from typing import Any

from feedback_app.api.errors import of_engine
from feedback_app.api.gateway.answers import ChatRequest, Reply, answer_stream
from feedback_app.api.gateway.schemas import (
    AnswerMessage,
    ChatAnswer,
    Choice,
    LogProbs,
    Usage,
)
from feedback_app.feedback.models import Completion
from feedback_app.serving.demo.events import WAITING
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.open_answers.services import Place

#: The first delta of a stream.
ROLE = {"role": "assistant", "content": ""}


def public_id(completion: Completion) -> str:
    """Return the completion's id in the API."""
    return f"cmpl-{completion.pk}"


def asks_logprobs(chat: ChatRequest) -> bool:
    return chat.sampling.logprobs is not None


def logprobs_take(reply: Reply) -> dict[str, Any] | None:
    """Return the log-probabilities that no event has had yet. A token may end in the middle of a
    character: its text comes with a later one."""
    taken, reply.logprobs = reply.logprobs, []
    return {"content": taken} if taken else None


def stored(reply: Reply) -> Completion:
    assert reply.completion is not None, "an answer that has begun is stored"  # noqa: S101
    return reply.completion


def usage_of(reply: Reply) -> Usage:
    read, written = len(reply.prompt_token_ids or []), len(reply.token_ids)
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def complete(chat: ChatRequest, place: Place) -> ChatAnswer:
    """Return the complete answer. Raises EngineError."""
    reply = Reply()
    for _ in answer_stream(chat, into=reply):
        place.renew()
    completion = stored(reply)
    return ChatAnswer(
        id=public_id(completion),
        created=int(completion.created_at.timestamp()),
        model=completion.version,
        choices=[
            Choice(
                message=AnswerMessage(content=reply.text),
                finish_reason=reply.finish_reason,
                logprobs=LogProbs(content=reply.logprobs) if asks_logprobs(chat) else None,
            )
        ],
        usage=usage_of(reply),
        completion_id=completion.pk,
    )


def sse(data: dict[str, Any]) -> str:
    """Return a server-sent event without a name."""
    # ASCII: some clients treat U+0085 and U+2028, which a model may generate, as line ends
    return f"data: {json.dumps(data)}\n\n"


def events(chat: ChatRequest, *, include_usage: bool) -> Generator[str]:
    """Yield the answer as chat.completion.chunk events, then `[DONE]`.

    Raises EngineError before the first event; later errors are an event.
    """
    reply = Reply()
    created = int(time.time())

    def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
        completion = stored(reply)
        return sse(
            {
                "id": public_id(completion),
                "object": "chat.completion.chunk",
                "created": created,
                "model": completion.version,
                "choices": choices,
                "completion_id": completion.pk,
                **more,
            }
        )

    def delta(*, finish_reason: str | None = None, **change: str) -> str:
        choice: dict[str, Any] = {"index": 0, "delta": change, "finish_reason": finish_reason}
        if asks_logprobs(chat):
            choice["logprobs"] = logprobs_take(reply)
        return chunk([choice])

    pieces = answer_stream(chat, into=reply)
    try:
        # before the first token an error can still be answered with a status
        first = next((piece for piece in pieces if piece), "")
        # in one write: after the first of two, this thread may wait for a core again
        begin = chunk([{"index": 0, "delta": ROLE, "finish_reason": None}])
        yield begin + (delta(content=first) if first else "")
        try:
            for piece in pieces:
                yield delta(content=piece) if piece else WAITING
        except EngineError as error:
            yield sse({**of_engine(error).body(), "completion_id": stored(reply).pk})
            return
        yield delta(finish_reason=reply.finish_reason)
        if include_usage:
            yield chunk([], usage=usage_of(reply).model_dump())
        yield "data: [DONE]\n\n"
    finally:
        pieces.close()  # type: ignore[attr-defined]


class StartedEvents(Iterator[str]):
    """Events with the first one computed, so that an error before it is answered with a status.

    Closing it closes the generator even if no event was ever read.
    """

    def __init__(self, source: Generator[str]) -> None:
        self.source = source
        self.waiting = [next(source)]

    def __next__(self) -> str:
        return self.waiting.pop() if self.waiting else next(self.source)

    def close(self) -> None:
        self.source.close()
