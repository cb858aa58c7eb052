"""Requests with tools: passed on to an engine that calls tools, and passed back as it answers.

Neither question nor answer is stored: an answer may be a call, and nothing could be learned from a
vote on one. With tool_choice "none" a request is answered and stored like any other (answers.py).
"""

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from feedback_app.accounts.models import ApiToken
from feedback_app.api.errors import ApiError, of_engine
from feedback_app.api.gateway.answers import TOKEN_CHECK_SECONDS, sampling_of, version_of
from feedback_app.api.gateway.payloads import sse
from feedback_app.api.gateway.schemas import ChatAsk
from feedback_app.serving.demo.events import WAITING
from feedback_app.serving.engine.client import Engine, EngineError, Sampling
from feedback_app.serving.open_answers.services import Place

#: What the gateway passes on of an engine's event.
PASSED = ("id", "object", "created", "choices", "usage")
#: What engines add to a choice for the gateway's own use.
INTERNAL = ("token_ids", "stop_reason")


@dataclass(frozen=True)
class ToolRequest:
    """A request with tools to a version."""

    token: ApiToken
    version: str
    messages: list[dict[str, Any]]
    system_prompt: str | None
    sampling: Sampling
    more: dict[str, Any]


def tool_request_of(ask: ChatAsk, *, token: ApiToken) -> ToolRequest:
    """Return the request of a valid body. Raises ApiError if the project's engine calls no tools,
    and 404 for an unknown version."""
    project = token.project
    if project.base_model not in settings.ENGINE_TOOLS:
        raise ApiError(
            400,
            f"The engine of {project.base_model} calls no tools: leave out tools, tool_choice and "
            "messages of tools. If it is a server that calls them, whoever runs this installation "
            "can name the base model in ENGINE_TOOLS.",
            "tools_not_supported",
            param="tools",
        )
    messages = [message.as_sent() for message in ask.messages]
    system_prompt = None
    if messages[0]["role"] in ("system", "developer"):
        system_prompt = messages.pop(0)["content"]
    more: dict[str, Any] = {"stream_options": {"include_usage": True}}
    if ask.tools is not None:
        more["tools"] = ask.definitions
    if ask.parallel_tool_calls is not None:
        more["parallel_tool_calls"] = ask.parallel_tool_calls
    choice = ask.tool_choice
    if choice is not None:
        more["tool_choice"] = choice if isinstance(choice, str) else choice.model_dump()
    return ToolRequest(
        token=token,
        version=version_of(ask.model, project=project),
        messages=messages,
        system_prompt=system_prompt,
        sampling=sampling_of(ask, project),
        more=more,
    )


def relayed(chat: ToolRequest) -> Iterator[dict[str, Any] | None]:
    """Yield the engine's events with the version's name; None for a comment. Raises EngineError.

    The stream ends when the token is revoked or expires.
    """
    coming = Engine(chat.token.project).relay(
        chat.messages,
        version=chat.version,
        sampling=chat.sampling,
        system_prompt=chat.system_prompt,
        more=chat.more,
    )
    checked_at = time.monotonic()
    with closing(coming):  # type: ignore[type-var]
        for event in coming:
            yield None if event is None else public(event, chat.version)
            if time.monotonic() - checked_at > TOKEN_CHECK_SECONDS:
                checked_at = time.monotonic()
                if not ApiToken.objects.valid().filter(pk=chat.token.pk).exists():
                    return


def public(event: dict[str, Any], version: str) -> dict[str, Any]:
    """Return an event without what is meant for the gateway alone."""
    passed = {name: event[name] for name in PASSED if event.get(name) is not None}
    passed["choices"] = [
        {name: value for name, value in choice.items() if name not in INTERNAL}
        for choice in event.get("choices", [])
    ]
    return passed | {"model": version}


def events(chat: ToolRequest, *, include_usage: bool) -> Generator[str]:
    """Yield the answer as chat.completion.chunk events, then `[DONE]`.

    Raises EngineError before the first event; later errors are an event.
    """
    coming = relayed(chat)
    begun = False
    with closing(coming):  # type: ignore[type-var]
        try:
            for event in coming:
                if event is None:
                    if begun:
                        yield WAITING
                    continue
                begun = True
                usage = event.pop("usage", None)
                if event["choices"]:
                    yield sse(event)
                elif usage and include_usage:
                    yield sse(event | {"usage": usage})
        except EngineError as error:
            if not begun:
                raise
            yield sse(of_engine(error).body())
            return
        yield "data: [DONE]\n\n"


@dataclass
class Message:
    """The parts of an answer, put together."""

    content: str = ""
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    finish_reason: str | None = None

    def add(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {}
        self.content += delta.get("content") or ""
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        for part in delta.get("tool_calls") or []:
            self.add_call(part)

    def add_call(self, part: dict[str, Any]) -> None:
        """Add to a call: its id and name come first, its arguments in pieces."""
        empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        call = self.calls.setdefault(int(part.get("index", 0)), empty)
        call["id"] = part.get("id") or call["id"]
        given = part.get("function") or {}
        call["function"]["name"] = given.get("name") or call["function"]["name"]
        call["function"]["arguments"] += given.get("arguments") or ""

    def as_sent(self) -> dict[str, Any]:
        """Return the message as OpenAI's clients read it."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content or None}
        if self.calls:
            message["tool_calls"] = [self.calls[index] for index in sorted(self.calls)]
        return message


def complete(chat: ToolRequest, place: Place) -> dict[str, Any]:
    """Return the complete answer. Raises EngineError."""
    message, head, usage = Message(), {}, None
    for event in relayed(chat):
        place.renew()
        if event is None:
            continue
        head = {name: event.get(name) for name in ("id", "created", "model")}
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            message.add(choice)
    choice = {
        "index": 0,
        "message": message.as_sent(),
        "logprobs": None,
        "finish_reason": message.finish_reason,
    }
    return {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
