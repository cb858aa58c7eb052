"""Streams from an OpenAI-compatible server, and measurements made by the client."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import httpx

#: A value that Django accepts as its CSRF token: the length of a real one.
CSRF = "a" * 32
TOPICS = (
    "how bread came to be baked in cities",
    "why rivers bend on their way to the sea",
    "what a lighthouse keeper did in a winter night",
    "how a violin is made from a tree",
    "why people once crossed deserts with salt",
    "what the first trains changed in small towns",
    "how bees decide where to build",
    "why maps of the same coast differ",
)


def question(number: int) -> list[dict[str, str]]:
    """Return conversation `number`: 70 to 120 tokens with a unique prefix, answered at length."""
    topic = TOPICS[number % len(TOPICS)]
    extra = "Take your time, name places and people, and never list anything. " * (number % 4)
    text = (
        f"Letter {number}. Write a long and detailed story about {topic}, with at least ten "
        f"paragraphs, each of them about another decade. {extra}Begin at once."
    )
    return [{"role": "user", "content": text}]


@dataclass
class Stream:
    """One answer as received by its client; times in seconds of perf_counter."""

    sent: float
    arrivals: list[float] = field(default_factory=list)  # of each event with text or tokens
    tokens: int = 0
    text: str = ""
    model: str = ""
    error: str | None = None

    @property
    def first(self) -> float:
        """Return the seconds to the first token."""
        return self.arrivals[0] - self.sent

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Return (when, seconds) between each two events."""
        pairs = zip(self.arrivals, self.arrivals[1:], strict=False)
        return [(after, after - before) for before, after in pairs]


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> Stream:
    """Stream one answer; an error is recorded in it."""
    stream = Stream(time.perf_counter())
    wanted = {**body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        async with client.stream("POST", "/v1/chat/completions", json=wanted) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                stream.error = f"{response.status_code}: {response.text[:300]}"
                return stream
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    note(stream, json.loads(line.removeprefix("data: ")))
    except httpx.HTTPError as error:
        stream.error = f"{type(error).__name__}: {error}"
    if not stream.error and not stream.arrivals:
        stream.error = "an empty answer"
    return stream


async def chat(client: httpx.AsyncClient, body: dict[str, Any]) -> Stream:
    """Send `body["text"]` in a new conversation of the demo, as the browser of the person with the
    session `body["session"]` does; tokens are the pieces that arrive."""
    stream = Stream(time.perf_counter())
    headers = {
        "Accept": "text/event-stream",
        "Cookie": f"sessionid={body['session']}; csrftoken={CSRF}",
        "X-CSRFToken": CSRF,
    }
    fields = {"text": body["text"]}
    event = ""
    async with client.stream("POST", body["path"], data=fields, headers=headers) as response:
        if response.status_code != httpx.codes.OK:
            stream.error = f"{response.status_code}: {(await response.aread())[:300]!r}"
            return stream
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: ") and event == "piece":
                stream.arrivals.append(time.perf_counter())
                stream.tokens += 1
            elif line.startswith("data: ") and event == "error":
                stream.error = line
    if not stream.error and not stream.arrivals:
        stream.error = "an empty answer"
    return stream


def note(stream: Stream, event: dict[str, Any]) -> None:
    """Record one event of a stream."""
    if event.get("error"):
        stream.error = str(event["error"])
    stream.model = event.get("model", stream.model)
    if event.get("usage"):
        stream.tokens = event["usage"]["completion_tokens"]
    for choice in event.get("choices") or []:
        text = (choice.get("delta") or {}).get("content") or ""
        if text or choice.get("token_ids"):
            stream.arrivals.append(time.perf_counter())
            stream.text += text


async def together(
    url: str,
    bodies: Sequence[Sequence[dict[str, Any]]],
    *,
    stagger: float,
    headers: dict[str, str] | None = None,
    by: Callable[[httpx.AsyncClient, dict[str, Any]], Awaitable[Stream]] = ask,
) -> list[Stream]:
    """Run each list of `bodies` as one reader who asks them in turn; readers start one by one."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=url, timeout=300, limits=limits, headers=headers
    ) as client:

        async def reader(number: int) -> list[Stream]:
            await asyncio.sleep(number * stagger)
            return [await by(client, body) for body in bodies[number]]

        found = await asyncio.gather(*(reader(number) for number in range(len(bodies))))
    return [stream for streams in found for stream in streams]


def run(url: str, bodies: Sequence[Sequence[dict[str, Any]]], **options: Any) -> list[Stream]:
    """Run `together` to its end. Raises RuntimeError if an answer failed."""
    streams = asyncio.run(together(url, bodies, **options))
    faults = [stream.error for stream in streams if stream.error]
    if faults:
        raise RuntimeError(f"{len(faults)} answers of {url} failed: {faults[0]}")
    return streams


def tokens_per_second(streams: Sequence[Stream]) -> float:
    """Return the rate of all streams together, from the first request to the last token."""
    began = min(stream.sent for stream in streams)
    ended = max(stream.arrivals[-1] for stream in streams)
    return sum(stream.tokens for stream in streams) / (ended - began)


def first_token(streams: Sequence[Stream]) -> float:
    """Return the median seconds to the first token."""
    return median(stream.first for stream in streams)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a `share` of them is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
