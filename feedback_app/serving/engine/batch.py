"""Asks an engine many things at once: each on its own, as fast as the engine delivers."""

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

import httpx
import structlog
from django.db import connection

from feedback_app.feedback.prompts.completions import Answer
from feedback_app.serving.engine.client import ELSEWHERE, AdapterBroken, EngineError
from feedback_app.serving.engine.concurrency import ConcurrencyLimit

log = structlog.get_logger(__name__)
W = TypeVar("W")
#: Called with the number of tokens received; an exception that it raises ends the request.
Heard = Callable[[int], object]

#: Requests under way at once, at most: enough to fill the engine's batch.
PARALLEL = 16
#: Pauses before an answer that failed is asked for again; after the last one it is missing.
RETRY_SECONDS = (1.0, 5.0, 20.0)
#: The pause after a full queue, which is no failure of the answer.
BUSY_SECONDS = 5.0
#: So many answers that are missing in a row are the engine's fault, not theirs.
MISSING_IN_A_ROW = 3
#: How often it is looked whether the work goes on.
POLL_SECONDS = 0.25
#: Refusals of the question itself: asking again changes nothing.
REFUSED = (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY)


@dataclass
class _Question(Generic[W]):
    """One thing to ask, and how often it has failed."""

    work: W
    failures: int = 0


def ask_each(
    work: Iterable[W],
    ask: Callable[[W, Heard], Answer],
    *,
    pace: ConcurrencyLimit,
    healthy: Callable[[], bool],
    goes_on: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[W, Answer | EngineError]]:
    """Yields each piece of work with its answer, as they come in, in any order.

    `ask` runs in a thread and hands its second argument to `Engine.answer`. An answer that fails
    is asked for again, alone and after a pause, while the others go on; if it keeps failing it is
    yielded with its error. If the engine as a whole is at fault (the version cannot be loaded,
    `healthy` says no, or several answers in a row are missing) nothing more is asked; what is under
    way is still yielded, then EngineError is raised. Ends early once `goes_on` says no.
    """
    todo = deque(_Question(each) for each in work)
    later: list[tuple[float, int, _Question[W]]] = []
    order = itertools.count()
    running: dict[Future[Answer], _Question[W]] = {}
    stopped = threading.Event()
    missing = 0
    fault: EngineError | None = None

    with ThreadPoolExecutor(pace.most) as pool:
        try:
            while (todo or later or running) and goes_on():
                while later and later[0][0] <= time.monotonic():
                    todo.appendleft(heapq.heappop(later)[2])
                while todo and len(running) < pace.allowed:
                    question = todo.popleft()
                    running[pool.submit(_answer, ask, question.work, pace, stopped)] = question
                if not running:
                    stopped.wait(POLL_SECONDS)
                finished, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                for future in finished:
                    question = running.pop(future)
                    try:
                        answer = future.result()
                    except EngineError as error:
                        pause = _pause(question, error, pace)
                        if fault is not None:
                            continue
                        if pause is not None:
                            due = time.monotonic() + pause
                            heapq.heappush(later, (due, next(order), question))
                            continue
                        missing += error.status not in REFUSED
                        if (
                            _of_the_version(error)
                            or missing >= MISSING_IN_A_ROW
                            or (error.status not in REFUSED and not healthy())
                        ):
                            fault = error
                            todo.clear()
                            later.clear()
                        else:
                            yield question.work, error
                    else:
                        missing = 0
                        yield question.work, answer
        finally:
            stopped.set()
            for future in running:
                future.cancel()
    if fault is not None:
        raise fault


def _of_the_version(error: EngineError) -> bool:
    """Returns whether no other question of this version could be answered either."""
    return isinstance(error, AdapterBroken) or error.status == httpx.codes.NOT_FOUND


def _pause(question: _Question[W], error: EngineError, pace: ConcurrencyLimit) -> float | None:
    """Returns the seconds after which to ask again, or None for an answer that is missing."""
    if error.status in REFUSED or _of_the_version(error):
        return None
    if error.status in ELSEWHERE:
        pace.refused()
    if error.status == httpx.codes.TOO_MANY_REQUESTS:
        return BUSY_SECONDS
    question.failures += 1
    log.warning("answer_failed", times=question.failures, why=str(error))
    if question.failures > len(RETRY_SECONDS):
        return None
    return RETRY_SECONDS[question.failures - 1]


def _answer(
    ask: Callable[[W, Heard], Answer], work: W, pace: ConcurrencyLimit, stopped: threading.Event
) -> Answer:
    begun = False

    def heard(tokens: int) -> None:
        nonlocal begun
        if stopped.is_set():
            raise EngineError("The answer is no longer needed.")
        if tokens and not begun:
            begun = True
            pace.begun()
        pace.delivered(tokens)

    try:
        return ask(work, heard)
    finally:
        connection.close()  # an engine of several may have been brought up from this thread
