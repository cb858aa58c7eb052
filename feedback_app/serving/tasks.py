"""Celery tasks of serving. A message may be delivered twice: the second delivery does nothing."""

import structlog
from celery import shared_task

from feedback_app.feedback.figures.services import figures_count, figures_due
from feedback_app.feedback.models import ProjectDeletion, Sampling
from feedback_app.serving.models import ChangeReport, TrafficSplit
from feedback_app.serving.project_deletion.services import deletion_claim, deletion_execute
from feedback_app.serving.project_home import history
from feedback_app.serving.releases import automatic, figures
from feedback_app.serving.releases.selectors import adapters_to_release
from feedback_app.serving.sampling.services import sampling_claim, sampling_execute
from feedback_app.serving.traffic_splits.assignments import RUNNING
from feedback_app.serving.version_diff.services import (
    adapters_without_version_diff,
    report_claim,
    report_execute,
    version_diff_request,
)
from feedback_app.training.models import Adapter
from feedback_app.web.errors import UserError

log = structlog.get_logger(__name__)

#: A message that no worker took by then is sent again by a later tick.
EXPIRES = 10


@shared_task(name="serving.dispatch")
def dispatch() -> None:
    """Send what is due to workers, every few seconds: ids only, no work."""
    due = (
        (sample_answers, Sampling.objects.filter(Sampling.claimable())),
        (release_automatically, adapters_to_release()),
        (request_version_diff, adapters_without_version_diff()),
        (write_version_diff, ChangeReport.objects.filter(ChangeReport.claimable())),
        (delete_project, ProjectDeletion.objects.filter(ProjectDeletion.claimable())),
        (count_figures, figures_due(figures.NAME)),
        (count_history, figures_due(history.NAME)),
        (watch_split, TrafficSplit.objects.filter(status=RUNNING, project__archived_at=None)),
    )
    for task, rows in due:
        for pk in rows.values_list("pk", flat=True):
            task.apply_async((pk,), expires=EXPIRES)


@shared_task(name="serving.count_figures")
def count_figures(pk: int) -> None:
    """Count the votes on each version of a large project."""
    figures_count(pk=pk, count=figures.up_rates_count)


@shared_task(name="serving.count_history")
def count_history(pk: int) -> None:
    """Count the votes of the last days of a large project."""
    figures_count(pk=pk, count=history.history_count)


@shared_task(name="serving.sample_answers")
def sample_answers(sampling_id: int) -> None:
    """Execute a sampling."""
    claim = sampling_claim(sampling_id)
    if claim is not None:
        sampling_execute(claim)


@shared_task(name="serving.release_automatically")
def release_automatically(adapter_id: int) -> None:
    """Release a version that passed the gate."""
    automatic.release_automatically(adapter_id)


@shared_task(name="serving.watch_split")
def watch_split(split_id: int) -> None:
    """Read the test of a traffic split and act on its result."""
    automatic.split_watch_claimed(split_id)


@shared_task(name="serving.request_version_diff")
def request_version_diff(adapter_id: int) -> None:
    """Request the version diff of a new gate winner."""
    adapter = Adapter.objects.select_related("project").get(pk=adapter_id)
    try:
        version_diff_request(adapter=adapter, by=None)
    except UserError as error:
        log.info("version_diff_waits", adapter=adapter.name, why=str(error))


@shared_task(name="serving.write_version_diff")
def write_version_diff(adapter_id: int) -> None:
    """Execute a version diff."""
    claim = report_claim(adapter_id)
    if claim is not None:
        report_execute(claim)


@shared_task(name="serving.delete_project")
def delete_project(project_id: int) -> None:
    """Delete a project, or what is left of it; a second delivery does nothing."""
    claim = deletion_claim(project_id)
    if claim is not None:
        deletion_execute(claim)
