"""Celery's side of training: each task reads ids, calls one service, and may run twice."""

import datetime as dt

from celery import shared_task
from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from feedback_app.training.launchers.child_process import run_execute
from feedback_app.training.models import Run
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.schedules.services import schedules_run

#: A message that no worker has taken for half the time after which a silent run counts as
#: abandoned may be lost with the broker: send another.
RESEND = settings.RUN_STALE_SECONDS / 2


@shared_task(name="training.dispatch")
def dispatch() -> None:
    """Every few seconds: start what is due, and hand waiting or abandoned runs to a worker."""
    schedules_run()
    now = timezone.now()
    unsent = Q(dispatched_at=None) | Q(dispatched_at__lt=now - dt.timedelta(seconds=RESEND))
    for run_id in Run.objects.filter(Run.claimable(), unsent).values_list("pk", flat=True):
        Run.objects.filter(pk=run_id).update(dispatched_at=now)
        train_run.apply_async((run_id,), expires=RESEND)


@shared_task(name="training.train_run")
def train_run(run_id: int) -> None:
    """Takes the run if it is free and carries it to its end; a second delivery does nothing."""
    claim = run_claim(run_id)
    if claim is not None:
        run_execute(claim)
