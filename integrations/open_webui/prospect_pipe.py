"""
title: Prospect
description: Chats with the live version of a Prospect project. Thumbs reach it through the event
  function "Prospect feedback".
license: MIT
requirements: httpx
version: 1.0.0

Install it under Admin Panel → Functions, then set the valves. Needs Open WebUI 0.6 or newer.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from pydantic import BaseModel, Field

ROLES = ("system", "user", "assistant")
#: Settings of a chat that the gateway understands.
PASSED = ("temperature", "top_p", "max_tokens", "stop", "seed")


class Pipe:
    """A model of Open WebUI that answers from Prospect's gateway."""

    class Valves(BaseModel):
        base_url: str = Field("https://prospect.example.com/v1", description="Prospect's gateway")
        api_key: str = Field("", description="An API token with the scope chat")
        model: str = Field("live", description="live, base or the name of a version")
        user_group: str = Field("", description="Label of these users; empty: the token's name")

    def __init__(self) -> None:
        self.valves = self.Valves()

    def pipes(self) -> list[dict[str, str]]:
        return [{"id": self.valves.model, "name": f"Prospect ({self.valves.model})"}]

    async def pipe(
        self,
        body: dict[str, Any],
        __user__: dict[str, Any] | None = None,
        __metadata__: dict[str, Any] | None = None,
    ) -> AsyncIterator[str] | str:
        """Return the answer, or its pieces where the chat streams."""
        asked = self.request_of(body, __user__ or {}, __metadata__ or {})
        if asked["stream"]:
            return self.pieces(asked)
        return "".join([piece async for piece in self.pieces(asked | {"stream": True})])

    def request_of(
        self, body: dict[str, Any], user: dict[str, Any], metadata: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the gateway's request. The message's id lets feedback find the answer."""
        labels = {
            "message_id": metadata.get("message_id"),
            "user_group": self.valves.user_group[:40],
        }
        return {
            "model": self.valves.model,
            "messages": [
                {"role": message["role"], "content": text_of(message.get("content"))}
                for message in body.get("messages", ())
                if message.get("role") in ROLES and text_of(message.get("content"))
            ],
            "stream": bool(body.get("stream")),
            **({"user": str(user["id"])} if user.get("id") else {}),
            **({"metadata": said} if (said := {k: v for k, v in labels.items() if v}) else {}),
            **{name: body[name] for name in PASSED if body.get(name) is not None},
        }

    async def pieces(self, asked: dict[str, Any]) -> AsyncIterator[str]:
        """Yield the text as the gateway sends it; an error is text, too, for the reader."""
        url = f"{self.valves.base_url.rstrip('/')}/chat/completions"
        headers = {"Authorization": f"Bearer {self.valves.api_key}"}
        # an answer may take long on a slow machine: the gateway keeps the stream alive
        async with (
            httpx.AsyncClient(timeout=httpx.Timeout(30, read=None)) as client,
            client.stream("POST", url, json=asked, headers=headers) as response,
        ):
            if response.status_code != httpx.codes.OK:
                yield f"Prospect: {error_of(await response.aread())}"
                return
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        yield f"\n\nProspect: {event['error'].get('message', '')}"
                        return
                    for choice in event.get("choices", ()):
                        yield choice.get("delta", {}).get("content") or ""


def text_of(content: Any) -> str:
    """Return the text of a message; images and files are left out."""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part.get("type") == "text")
    return content if isinstance(content, str) else ""


def error_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "the gateway gave no answer."
