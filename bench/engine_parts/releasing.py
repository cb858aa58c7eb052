"""A release by an admin, while streams run through the gateway."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from bench.engine_parts.client import CSRF, Stream, ask
from bench.engine_parts.processes import ADAPTERS
from bench.engine_parts.web import Web


@dataclass(frozen=True)
class Released:
    """Moments in seconds of perf_counter: the click, its page's response, the new version's first
    token; and the measurements of the streams."""

    pressed: float
    page_answered: float
    answered: float
    streams: list[Stream]


async def press(client: httpx.AsyncClient, place: Web, version: str) -> None:
    """Click the release page's button. Raises RuntimeError with the page's message on failure."""
    headers = {
        "Cookie": f"sessionid={place.admin}; csrftoken={CSRF}",
        "X-CSRFToken": CSRF,
        "HX-Request": "true",
    }
    path = f"/projects/{place.slug}/adapters/{version}/release/"
    response = await client.post(path, data={"reason": "measured"}, headers=headers)
    if response.status_code >= httpx.codes.BAD_REQUEST:
        raise RuntimeError(f"{version} was not released: {response.text[:300]}")


async def release(place: Web, bodies: Sequence[dict[str, Any]], *, usual: float) -> Released:
    """Release the second version `usual` seconds after all of `bodies` are being answered by
    `live`, which is the first version; then ask `live` again.

    Raises RuntimeError if an answer ended before the new version sent a token.
    """
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=place.url, timeout=300, limits=limits, headers=place.headers
    ) as client:
        await press(client, place, ADAPTERS[0])
        running = [asyncio.create_task(ask(client, {**body, "model": "live"})) for body in bodies]
        async with httpx.AsyncClient(base_url=place.engine_url) as engine:
            while await gauge(engine, "running") < len(bodies):
                if all(task.done() for task in running):
                    raise RuntimeError(f"all answers ended early: {running[0].result().error}")
                await asyncio.sleep(0.1)
        await asyncio.sleep(usual)
        pressed = time.perf_counter()
        await press(client, place, ADAPTERS[1])
        page_answered = time.perf_counter()
        first = await ask(client, {**bodies[0], "model": "live", "max_tokens": 1})
        if any(task.done() for task in running):
            raise RuntimeError("answers ended before the release did")
        streams = list(await asyncio.gather(*running))
    if {stream.model for stream in streams} != {ADAPTERS[0]} or first.model != ADAPTERS[1]:
        raise RuntimeError("an answer is not of the version that it was asked of")
    return Released(pressed, page_answered, first.arrivals[0], streams)


async def gauge(client: httpx.AsyncClient, name: str) -> int:
    """Return one of the engine's own metrics."""
    lines = (await client.get("/metrics")).text.splitlines()
    return next(
        int(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(f"prospect_engine_{name} ")
    )
