"""The stream of an answer from an engine: its events and errors."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from feedback_app.feedback.prompts.completions import storable
from feedback_app.serving.engine.event_lines import event_lines

#: The finish reason of an incomplete answer.
ABORTED = "aborted"


class EngineError(Exception):
    """The engine failed; the message is written for users. `status` 0: it did not answer."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class AdapterBroken(EngineError):
    """The engine runs, but cannot load this version: its files are missing or damaged."""


@dataclass
class Streamed:
    """An answer in progress; complete once the iterator has ended."""

    version: str = ""
    text: str = ""
    finish_reason: str = ABORTED
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] = field(default_factory=list)
    # of the tokens, as OpenAI writes them, where they were asked for
    logprobs: list[dict[str, Any]] = field(default_factory=list)


def chunks(response: httpx.Response) -> Iterator[dict[str, Any] | None]:
    """Yield the events of a stream as they arrive; None for a comment, which the engine sends while
    it works. Raises EngineError for an error that the engine reports."""
    for line in event_lines(response.iter_text()):
        if line.startswith(":"):
            yield None
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        try:
            chunk = json.loads(data)
        except ValueError as error:
            raise EngineError("The engine sent what is no JSON.", status=500) from error
        if "error" in chunk:
            raise EngineError(chunk["error"].get("message", "The engine failed."), status=500)
        yield chunk


def pieces(response: httpx.Response, into: Streamed) -> Iterator[str]:
    """Yield the text of a stream as it arrives and keep everything in `into`.

    A comment is an empty piece. Raises EngineError for an error that the engine reports.
    """
    for chunk in chunks(response):
        if chunk is None:
            yield ""
            continue
        into.prompt_token_ids = chunk.get("prompt_token_ids") or into.prompt_token_ids
        for choice in chunk.get("choices", []):
            into.token_ids += choice.get("token_ids") or []
            into.logprobs += (choice.get("logprobs") or {}).get("content") or []
            into.finish_reason = choice.get("finish_reason") or into.finish_reason
            piece = (choice.get("delta") or {}).get("content")
            if piece:
                piece = storable(piece)  # what is read is what is kept
                into.text += piece
                yield piece
