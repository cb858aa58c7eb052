"""Concurrent requests to an engine, with retries and an adaptive limit."""

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

import httpx
import structlog
from django.db import connection

from feedback_app.feedback.prompts.completions import Answer
from feedback_app.serving.engine.client import ELSEWHERE, AdapterBroken, EngineError
from feedback_app.serving.engine.concurrency import ConcurrencyLimit
from feedback_app.web.log_context import thread_context

log = structlog.get_logger(__name__)
W = TypeVar("W", bound=Hashable)
#: Called with the number of tokens received; an exception that it raises ends the request.
OnTokens = Callable[[int], object]

#: The most concurrent requests: enough to fill the engine's batch.
PARALLEL = 16
#: Pauses before the retries of a failed answer; after the last one it is missing.
RETRY_SECONDS = (1.0, 5.0, 20.0)
#: The pause after a full queue, which does not count as a failure of the answer.
BUSY_SECONDS = 5.0
#: Missing answers in a row, to so many prompts, mean that the engine as a whole fails.
MISSING_IN_A_ROW = 3
#: Time between two checks whether to continue.
POLL_SECONDS = 0.25
#: Refusals of the request itself: a retry cannot succeed.
REFUSED = (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY)


@dataclass
class _Request(Generic[W]):
    """One request, and how often it has failed."""

    work: W
    failures: int = 0


def ask_each(
    work: Iterable[W],
    ask: Callable[[W, OnTokens], Answer],
    *,
    limit: ConcurrencyLimit,
    healthy: Callable[[], bool],
    goes_on: Callable[[], bool] = lambda: True,
    prompt_of: Callable[[W], Hashable] = lambda work: work,
) -> Iterator[tuple[W, Answer | EngineError]]:
    """Yield each piece of work with its answer as they complete, in any order.

    `ask` runs in a thread and passes its second argument to `Engine.answer`. A failed answer is
    retried after a pause while the others continue; if it keeps failing it is yielded with its
    error. If the engine as a whole fails (the version cannot be loaded, `healthy` returns False,
    or the answers to several prompts in a row are missing) no further request starts; those in
    progress are still yielded, then EngineError is raised. Ends early once `goes_on` returns False.

    `prompt_of` tells which work is about the same prompt: a prompt that the engine cannot answer
    (too long for its memory, for example) fails however often it is asked.
    """
    todo = deque(_Request(each) for each in work)
    later: list[tuple[float, int, _Request[W]]] = []
    order = itertools.count()
    running: dict[Future[Answer], _Request[W]] = {}
    stopped = threading.Event()
    missing: set[Hashable] = set()
    fault: EngineError | None = None

    with ThreadPoolExecutor(limit.most, **thread_context()) as pool:
        try:
            while (todo or later or running) and goes_on():
                while later and later[0][0] <= time.monotonic():
                    todo.appendleft(heapq.heappop(later)[2])
                while todo and len(running) < limit.allowed:
                    request = todo.popleft()
                    running[pool.submit(_answer, ask, request.work, limit, stopped)] = request
                if not running:
                    stopped.wait(POLL_SECONDS)
                finished, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                for future in finished:
                    request = running.pop(future)
                    try:
                        answer = future.result()
                    except EngineError as error:
                        pause = _pause(request, error, limit)
                        if fault is not None:
                            continue
                        if pause is not None:
                            due = time.monotonic() + pause
                            heapq.heappush(later, (due, next(order), request))
                            continue
                        if error.status not in REFUSED:
                            missing.add(prompt_of(request.work))
                        if (
                            _of_the_version(error)
                            or len(missing) >= MISSING_IN_A_ROW
                            or (error.status not in REFUSED and not healthy())
                        ):
                            fault = error
                            todo.clear()
                            later.clear()
                        else:
                            yield request.work, error
                    else:
                        missing.clear()
                        yield request.work, answer
        finally:
            stopped.set()
            for future in running:
                future.cancel()
    if fault is not None:
        raise fault


def _of_the_version(error: EngineError) -> bool:
    """Return whether no other request of this version could be answered either."""
    return isinstance(error, AdapterBroken) or error.status == httpx.codes.NOT_FOUND


def _pause(request: _Request[W], error: EngineError, limit: ConcurrencyLimit) -> float | None:
    """Return the seconds until the retry, or None for an answer that is missing."""
    if error.status in REFUSED or _of_the_version(error):
        return None
    if error.status in ELSEWHERE:
        limit.refused()
    if error.status == httpx.codes.TOO_MANY_REQUESTS:
        return BUSY_SECONDS
    request.failures += 1
    log.warning("answer_failed", times=request.failures, why=str(error))
    if request.failures > len(RETRY_SECONDS):
        return None
    return RETRY_SECONDS[request.failures - 1]


def _answer(
    ask: Callable[[W, OnTokens], Answer], work: W, limit: ConcurrencyLimit, stopped: threading.Event
) -> Answer:
    begun = False

    def on_tokens(tokens: int) -> None:
        nonlocal begun
        if stopped.is_set():
            raise EngineError("The answer is no longer needed.")
        if tokens and not begun:
            begun = True
            limit.begun()
        limit.delivered(tokens)

    try:
        return ask(work, on_tokens)
    finally:
        connection.close()  # this thread may have read the database to bring up a replica
