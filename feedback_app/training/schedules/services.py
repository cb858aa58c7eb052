"""Services of schedules: runs that start when there are enough new examples."""

import datetime as dt
import hashlib
import re
from dataclasses import asdict, dataclass
from zoneinfo import available_timezones

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
from feedback_app.training.schedules.own_settings import settings_scheduled
from feedback_app.training.schedules.selectors import agreement_objection, quiet_hours
from feedback_app.web.errors import UserError
from feedback_app.web.text.plurals import number_of

log = structlog.get_logger(__name__)

#: Numbers in a reason, which change with every vote.
FIGURES = re.compile(r"\d+")


@dataclass(frozen=True)
class Thresholds:
    """What a run of a schedule waits for besides new examples (models.py: Schedule)."""

    min_agreement: int | None = None
    quiet_from: dt.time | None = None
    quiet_until: dt.time | None = None
    time_zone: str = ""

    def __str__(self) -> str:
        parts = []
        if self.min_agreement is not None:
            parts.append(f", agreement from {self.min_agreement} %")
        if self.quiet_from is not None and self.quiet_until is not None:
            parts.append(f", quiet {self.quiet_from:%H:%M} to {self.quiet_until:%H:%M}")
        return "".join([*parts, f" {self.time_zone}" if self.time_zone else ""])


def schedule_set(
    *,
    project: Project,
    by: User,
    enabled: bool,
    min_new_examples: int,
    min_hours: float,
    auto_release: bool,
    thresholds: Thresholds = Thresholds(),
) -> Schedule:
    """Set when runs start automatically. Raises UserError for values out of range."""
    if not 1 <= min_new_examples <= 1_000_000 or not 0 <= min_hours <= 24 * 365:
        raise UserError("Train after at least 1 new example, and at most every 0 to 8,760 hours.")
    thresholds_check(thresholds)
    with transaction.atomic():
        schedule, _ = Schedule.objects.update_or_create(
            project=project,
            defaults={
                "enabled": enabled,
                "min_new_examples": min_new_examples,
                "min_hours": min_hours,
                "auto_release": auto_release,
                **asdict(thresholds),
            },
        )
        on = "on" if enabled else "off"
        audit(
            project=project,
            actor=by,
            action="schedule.set",
            target=f"{on}: {number_of(min_new_examples, 'example')}, {min_hours:g} h{thresholds}",
        )
    return schedule


def thresholds_check(thresholds: Thresholds) -> None:
    """Raise UserError for thresholds that mean nothing."""
    least = thresholds.min_agreement
    if least is not None and not 1 <= least <= 100:
        raise UserError("The least agreement is 1 to 100 %.")
    if (thresholds.quiet_from is None) != (thresholds.quiet_until is None):
        raise UserError("Quiet hours have a beginning and an end.")
    if thresholds.quiet_from is not None and thresholds.quiet_from == thresholds.quiet_until:
        raise UserError("Quiet hours that end when they begin leave no time for a run.")
    if thresholds.time_zone and thresholds.time_zone not in available_timezones():
        raise UserError(f"There is no time zone {thresholds.time_zone}.")


def schedule_due(*, schedule: Schedule, now: dt.datetime | None = None) -> bool:
    """Return whether there are enough new examples, the last run is long enough ago, and it is not
    in the quiet hours.

    Any earlier run counts, also a failed one, so that a failing run is not repeated at every tick.
    """
    now = now or timezone.now()
    if not schedule.enabled:
        return False
    quiet = quiet_hours(schedule)
    if quiet is not None and quiet.include(now):
        return False
    if schedule.project.runs.active().evaluated().exists():
        return False
    runs = schedule.project.runs.on_new_examples().select_related("snapshot")
    last = runs.newest_first().first()
    fresh = schedule.project.examples.all()
    if last is not None:
        if now - last.created_at < dt.timedelta(hours=schedule.min_hours):
            return False
        fresh = fresh.filter(created_at__gt=last.snapshot.created_at)
    # not one row more is counted than it takes
    return fresh[: schedule.min_new_examples].count() == schedule.min_new_examples


def schedules_run(*, now: dt.datetime | None = None) -> list[Run]:
    """Start the runs that are due; a constraint allows one active run per project."""
    started = []
    enabled = Schedule.objects.filter(enabled=True, project__archived_at=None)
    for schedule in enabled.select_related("project"):
        try:
            run = schedule_run(schedule, now=now)
        except Exception:  # of this project: the runs of all others must not wait for it
            log.exception("schedule_failed", project=schedule.project.slug)
            continue
        if run is not None:
            started.append(run)
    return started


def schedule_run(schedule: Schedule, *, now: dt.datetime | None) -> Run | None:
    """Start the run of a schedule, if it is due; tell the admins why it does not start."""
    if not schedule_due(schedule=schedule, now=now):
        return None
    try:
        return scheduled_run(schedule)
    except UserError as objection:
        log.info("schedule_waits", project=schedule.project.slug, why=str(objection))
        schedule_notify(schedule, str(objection), now=now or timezone.now())
        return None


def scheduled_run(schedule: Schedule) -> Run:
    """Start the run of a schedule that is due. Raises UserError while annotators agree too little,
    and what run_request raises."""
    if objection := agreement_objection(schedule):
        raise UserError(objection)
    return run_request(
        project=schedule.project,
        by=None,
        config=settings_scheduled(schedule, schedule.project),
        trigger=Run.Trigger.SCHEDULE,
        auto_release=schedule.auto_release,
    )


def schedule_notify(schedule: Schedule, why: str, *, now: dt.datetime) -> None:
    """Tell the project's admins why a run that is due does not start; once a day for a reason,
    whatever its figures."""
    project = schedule.project
    digest = hashlib.sha256(FIGURES.sub("", why).encode()).hexdigest()[:16]
    with transaction.atomic():
        notify(
            project=project,
            kind=NotificationKind.SCHEDULE_SKIPPED,
            key=f"{now:%Y-%m-%d}:{digest}",
            text=f"A run is due and does not start. {why}",
            path=reverse("runs", args=[project.slug]),
        )
