"""Request ids, counts and heartbeats of Celery, by its signals.

Imported before Django is set up: no models here.
"""

import time
import uuid
from typing import Any

import structlog
from celery import Task
from celery.signals import (
    beat_init,
    before_task_publish,
    heartbeat_sent,
    task_postrun,
    task_prerun,
    worker_ready,
)
from structlog.contextvars import bind_contextvars, clear_contextvars, reset_contextvars

from feedback_app.monitoring import heartbeats, task_counts, tracing
from feedback_app.monitoring.processes import ProcessBeat, devices_here
from feedback_app.web import log_context

log = structlog.get_logger(__name__)

#: The header of a message that carries the request's id.
HEADER = "request_id"
DISPATCH_SUFFIX = ".dispatch"

_queues: list[str] = []
_last_beat = 0.0
_process: ProcessBeat | None = None


@before_task_publish.connect
def request_id_send(*, headers: dict[str, Any] | None = None, **_: object) -> None:
    """Send the current request's id with the message, unless the sender named another."""
    request_id = log_context.request_id()
    if headers is not None and request_id and not headers.get(HEADER):
        headers[HEADER] = request_id
    if headers is not None:
        tracing.inject(headers)


@task_prerun.connect
def task_begin(*, task_id: str, task: Task[Any, Any], **_: object) -> None:
    """Bind the id of the request that caused the task to the log lines of this thread."""
    if not task.request.is_eager:
        clear_contextvars()  # of the thread's previous task
    # an eager task has its headers in a dictionary of their own
    own = task.request.get("headers") or {}
    request_id = task.request.get(HEADER) or own.get(HEADER) or uuid.uuid4().hex
    tokens = bind_contextvars(request_id=request_id, task=task.name, task_id=task_id)
    span = tracing.task_begin(task.name, {**own, **vars(task.request)})
    task.request.update(monitoring=(time.monotonic(), tokens, span))


@task_postrun.connect
def task_end(*, task: Task[Any, Any], state: str | None = None, **_: object) -> None:
    """Count the task and log its end."""
    started, tokens, span = task.request.get("monitoring") or (time.monotonic(), {}, None)
    seconds = time.monotonic() - started
    try:
        task_counts.add(task.name, state=state or "UNKNOWN", seconds=seconds)
        if task.name.endswith(DISPATCH_SUFFIX):
            heartbeats.beat(heartbeats.DISPATCH)
        else:
            log.info("task_ended", state=state, seconds=round(seconds, 3))
    finally:
        tracing.task_end(span, state=state or "")
        reset_contextvars(**tokens)


@worker_ready.connect
def queues_remember(*, sender: Any, **_: object) -> None:
    """Remember which queues this worker takes messages from, and send the first heartbeat."""
    global _process
    _queues[:] = sender.app.amqp.queues.consume_from
    heartbeats.beat(*_queues)
    trains = "gpu" in _queues
    _process = ProcessBeat(
        "worker", queues=tuple(_queues), devices=devices_here() if trains else ()
    )
    _process.beat()


@beat_init.connect
def beat_process(**_: object) -> None:
    """Store heartbeats of beat from a thread: its loop sleeps until the next message is due."""
    ProcessBeat("beat").forever()


@heartbeat_sent.connect
def worker_beat(**_: object) -> None:
    """Store a heartbeat every few seconds. Celery calls this from the loop that takes messages."""
    global _last_beat
    now = time.monotonic()
    if _queues and now - _last_beat >= heartbeats.BEAT_SECONDS:
        _last_beat = now
        heartbeats.beat(*_queues)
        if _process is not None:
            _process.beat()
