"""Celery's side of serving: sampling, releases that nobody needs to press, and splits."""

import structlog
from celery import shared_task

from feedback_app.feedback.models import Sampling
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.models import ChangeReport, TrafficSplit
from feedback_app.serving.releases.selectors import adapters_to_release
from feedback_app.serving.releases.services import release_promote
from feedback_app.serving.sampling.services import claimable, sampling_claim, sampling_execute
from feedback_app.serving.traffic_splits.assignments import RUNNING
from feedback_app.serving.traffic_splits.services import split_watch
from feedback_app.serving.version_diff.services import (
    adapters_to_describe,
    changes_request,
    report_claim,
    report_execute,
    reports_claimable,
)
from feedback_app.web.errors import UserError

log = structlog.get_logger(__name__)


@shared_task(name="serving.dispatch")
def dispatch() -> None:
    """Every few seconds: hand samplings to a worker, release what won the gate by itself, have its
    changes written, and read the tests of splits."""
    for sampling_id in Sampling.objects.filter(claimable()).values_list("pk", flat=True):
        sample_answers.apply_async((sampling_id,), expires=10)
    for adapter in adapters_to_release():
        try:
            release_promote(
                project=adapter.project,
                adapter=adapter,
                by=None,
                reason="It won the gate; the schedule releases by itself.",
            )
        except (UserError, EngineError) as error:
            # the next tick tries again
            log.warning("auto_release_failed", adapter=adapter.name, why=str(error))
    for adapter in adapters_to_describe():
        try:
            changes_request(adapter=adapter, by=None)
        except UserError as error:
            log.info("changes_wait", adapter=adapter.name, why=str(error))
    for adapter_id in ChangeReport.objects.filter(reports_claimable()).values_list("pk", flat=True):
        write_changes.apply_async((adapter_id,), expires=10)
    for split in TrafficSplit.objects.filter(status=RUNNING).select_related("project", "candidate"):
        try:
            split_watch(split=split)
        except (UserError, EngineError) as error:
            log.warning("split_waits", split=split.pk, why=str(error))


@shared_task(name="serving.sample_answers")
def sample_answers(sampling_id: int) -> None:
    """Takes the sampling if it is free; a second delivery does nothing."""
    claim = sampling_claim(sampling_id)
    if claim is not None:
        sampling_execute(claim)


@shared_task(name="serving.write_changes")
def write_changes(adapter_id: int) -> None:
    """Takes the report if it is free; a second delivery does nothing."""
    claim = report_claim(adapter_id)
    if claim is not None:
        report_execute(claim)
