"""Answers in OpenAI's shape: whole, and as the events of a stream."""

import json
import time
from collections.abc import Generator, Iterator
from typing import Any

from feedback_app.api.errors import of_engine
from feedback_app.api.gateway.answers import Question, Reply, answer_stream
from feedback_app.api.gateway.schemas import AnswerMessage, ChatAnswer, Choice, Usage
from feedback_app.feedback.models import Completion
from feedback_app.serving.demo.events import WAITING
from feedback_app.serving.engine.client import EngineError


def public_id(completion: Completion) -> str:
    """The completion's name outside."""
    return f"cmpl-{completion.pk}"


def stored(reply: Reply) -> Completion:
    assert reply.completion is not None, "an answer that has begun is stored"  # noqa: S101
    return reply.completion


def usage_of(reply: Reply) -> Usage:
    read, written = len(reply.prompt_token_ids or []), len(reply.token_ids)
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def whole(question: Question) -> ChatAnswer:
    """The answer in one body. Raises EngineError."""
    reply = Reply()
    for _ in answer_stream(question, into=reply):
        pass
    completion = stored(reply)
    return ChatAnswer(
        id=public_id(completion),
        created=int(completion.created_at.timestamp()),
        model=completion.version,
        choices=[
            Choice(message=AnswerMessage(content=reply.text), finish_reason=reply.finish_reason)
        ],
        usage=usage_of(reply),
        completion_id=completion.pk,
    )


def sse(data: dict[str, Any]) -> str:
    """One server-sent event without a name."""
    # ASCII: some clients take U+0085 or U+2028, which a model may write, for the end of a line
    return f"data: {json.dumps(data)}\n\n"


def events(question: Question, *, include_usage: bool) -> Generator[str]:
    """The answer as chat.completion.chunk events, `[DONE]` at the end.

    Raises EngineError before the first event; later faults are an event of their own.
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
        return chunk([{"index": 0, "delta": change, "finish_reason": finish_reason}])

    pieces = answer_stream(question, into=reply)
    try:
        # before the first word a fault can still be answered with a status
        first = next((piece for piece in pieces if piece), "")
        # in one write: the reader of two would wait for this thread to be given a core again
        yield delta(role="assistant", content="") + (delta(content=first) if first else "")
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


class Begun(Iterator[str]):
    """Events of which the first is there: what fails before it is answered with a status.

    Closing it reaches the generator even if nobody ever took an event from it.
    """

    def __init__(self, source: Generator[str]) -> None:
        self.source = source
        self.waiting = [next(source)]

    def __next__(self) -> str:
        return self.waiting.pop() if self.waiting else next(self.source)

    def close(self) -> None:
        self.source.close()
