"""Services of schedules: runs that start when there are enough new examples."""

import datetime as dt
import hashlib

import structlog
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import NotificationKind, Project
from feedback_app.feedback.notifications.services import notify
from feedback_app.training.models import (
    Run,
    Schedule,
)
from feedback_app.training.runs.services import run_request
from feedback_app.web.errors import UserError

log = structlog.get_logger(__name__)


def schedule_set(
    *,
    project: Project,
    by: User,
    enabled: bool,
    min_new_examples: int,
    min_hours: float,
    auto_release: bool,
) -> Schedule:
    """Set when runs start automatically."""
    if not 1 <= min_new_examples <= 1_000_000 or not 0 <= min_hours <= 24 * 365:
        raise UserError("Train after at least 1 new example, and at most every 0 to 8,760 hours.")
    with transaction.atomic():
        schedule, _ = Schedule.objects.update_or_create(
            project=project,
            defaults={
                "enabled": enabled,
                "min_new_examples": min_new_examples,
                "min_hours": min_hours,
                "auto_release": auto_release,
            },
        )
        audit(
            project=project,
            actor=by,
            action="schedule.set",
            target=f"{'on' if enabled else 'off'}: {min_new_examples} examples, {min_hours:g} h",
        )
    return schedule


def schedule_due(*, schedule: Schedule, now: dt.datetime | None = None) -> bool:
    """Return whether there are enough new examples, and the last run is long enough ago.

    Any earlier run counts, also a failed one, so that a failing run is not repeated at every tick.
    """
    now = now or timezone.now()
    if not schedule.enabled:
        return False
    if schedule.project.runs.active().exists():
        return False
    last = schedule.project.runs.on_new_examples().newest_first().first()
    fresh = schedule.project.examples.all()
    if last is not None:
        if now - last.created_at < dt.timedelta(hours=schedule.min_hours):
            return False
        fresh = fresh.filter(created_at__gt=last.created_at)
    # not one row more is counted than it takes
    return fresh[: schedule.min_new_examples].count() == schedule.min_new_examples


def schedules_run(*, now: dt.datetime | None = None) -> list[Run]:
    """Start the runs that are due; a constraint allows one active run per project."""
    started = []
    enabled = Schedule.objects.filter(enabled=True, project__archived_at=None)
    for schedule in enabled.select_related("project"):
        if not schedule_due(schedule=schedule, now=now):
            continue
        try:
            started.append(
                run_request(
                    project=schedule.project,
                    by=None,
                    trigger=Run.Trigger.SCHEDULE,
                    auto_release=schedule.auto_release,
                )
            )
        except UserError as objection:
            log.info("schedule_waits", project=schedule.project.slug, why=str(objection))
            schedule_notify(schedule.project, str(objection), now=now or timezone.now())
    return started


def schedule_notify(project: Project, why: str, *, now: dt.datetime) -> None:
    """Tell the project's admins why a run that is due does not start; once a day for a reason."""
    digest = hashlib.sha256(why.encode()).hexdigest()[:16]
    with transaction.atomic():
        notify(
            project=project,
            kind=NotificationKind.SCHEDULE_SKIPPED,
            key=f"{now:%Y-%m-%d}:{digest}",
            text=f"A run is due and does not start. {why}",
            path=reverse("runs", args=[project.slug]),
        )
