"""The Celery app: queues `default` (short work) and `gpu` (training, one at a time)."""

import gc
import os
from importlib import import_module
from pathlib import Path

from celery import Celery
from celery.signals import before_task_publish, worker_ready

from feedback_app.operations.beat_tick import tick_write

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "feedback_app.config.settings")
app = Celery("prospect")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# connects the signals
import_module("feedback_app.monitoring.celery_signals")


@worker_ready.connect
def announce(**_: object) -> None:
    """Create the file that the supervisor waits for (process.py), if there is a supervisor."""
    # Everything loaded by now stays. Python collects all garbage once there is a quarter as much as
    # there are objects: without those, that is sooner.
    gc.collect()
    gc.freeze()
    path = os.environ.get("PROSPECT_READY_FILE")
    if path:
        Path(path).touch()


@before_task_publish.connect(sender="feedback.dispatch")
def tick(**_: object) -> None:
    """Note that beat is running: nothing else sends this message."""
    tick_write()
