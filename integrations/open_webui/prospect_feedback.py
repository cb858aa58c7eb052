"""
title: Prospect feedback
description: Sends the thumbs on answers of the pipe "Prospect" to its project, as they are given.
license: MIT
requirements: httpx
version: 1.0.0

Install it under Admin Panel → Functions, set the valves and enable it. Needs Open WebUI 0.10 or
newer, which has event functions. For older versions, import the export of feedback instead.
"""

import inspect
from typing import Any

import httpx
from pydantic import BaseModel, Field

VERDICTS = {"1": "up", "-1": "down"}
COMMENT_LIMIT = 2_000


class Event:
    """Sends each thumb on an answer of Prospect to `POST /v1/feedback`."""

    class Valves(BaseModel):
        base_url: str = Field("https://prospect.example.com/v1", description="Prospect's gateway")
        api_key: str = Field("", description="An API token with the scope feedback")
        pipe: str = Field("prospect", description="The id of the pipe function")

    def __init__(self) -> None:
        self.valves = self.Valves()

    async def event(
        self, event: dict[str, Any], __event_name__: str | None = None, **_: Any
    ) -> None:
        """Handle a thumb that was given or changed; others are none of ours."""
        if __event_name__ not in ("feedback.created", "feedback.updated"):
            return
        found = await feedback_of(event)
        if found is None:
            return
        vote = self.vote_of(found)
        if vote is not None:
            await self.send(vote)

    def vote_of(self, feedback: dict[str, Any]) -> dict[str, Any] | None:
        """Return the gateway's request; None for another model's answer or without a thumb."""
        data, meta = feedback.get("data") or {}, feedback.get("meta") or {}
        verdict = VERDICTS.get(str(data.get("rating")))
        model = str(data.get("model_id") or meta.get("model_id") or "")
        ours = model.partition(".")[0] == self.valves.pipe
        if verdict is None or not ours or not meta.get("message_id"):
            return None
        said = [str(data[name]) for name in ("reason", "comment") if data.get(name)]
        return {
            "completion_id": f"message:{meta['message_id']}",
            "verdict": verdict,
            "comment": ": ".join(said)[:COMMENT_LIMIT],
            **({"user": str(feedback["user_id"])} if feedback.get("user_id") else {}),
        }

    async def send(self, vote: dict[str, Any]) -> None:
        """Send the vote. Raise what httpx raises: Open WebUI logs it."""
        url = f"{self.valves.base_url.rstrip('/')}/feedback"
        headers = {"Authorization": f"Bearer {self.valves.api_key}"}
        async with httpx.AsyncClient(timeout=30) as client:
            response = await client.post(url, json=vote, headers=headers)
            response.raise_for_status()


async def feedback_of(event: dict[str, Any]) -> dict[str, Any] | None:
    """Return the feedback of an event: from the event, or from Open WebUI's database by its id."""
    data = event.get("data") or {}
    if "rating" in (data.get("data") or {}) and data.get("meta"):
        return dict(data)
    key = (event.get("subject") or {}).get("id")
    if not key:
        return None
    from open_webui.models.feedbacks import Feedbacks

    found = Feedbacks.get_feedback_by_id(key)
    if inspect.isawaitable(found):  # since 0.9 the models are asynchronous
        found = await found
    return found.model_dump() if found is not None else None
