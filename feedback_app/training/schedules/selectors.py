"""When the next run of a project starts, and why not yet."""

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from django.conf import settings
from django.utils import timezone

from feedback_app.db.bounded_count import COUNTED, counted
from feedback_app.feedback.models import Project
from feedback_app.feedback.quality.selectors import agreed
from feedback_app.training.models import Run, Schedule
from feedback_app.training.schedules.quiet_hours import QuietHours


@dataclass(frozen=True)
class NextRun:
    """`active` is the run in progress, if there is one. Otherwise a schedule that is on starts the
    next run once `missing` more examples have come in, not before `earliest`, and not while there
    is an `objection`. `quiet`: `earliest` is the end of the quiet hours.

    `new_examples` came in since the last run; the number is bounded by `bounded_count.COUNTED`.
    """

    active: Run | None
    schedule: Schedule | None
    new_examples: int
    missing: int = 0
    earliest: dt.datetime | None = None
    quiet: bool = False
    objection: str = ""

    @property
    def due(self) -> bool:
        """Return whether the schedule starts a run at its next look, unless the run is refused."""
        ready = self.schedule is not None and not self.missing and self.earliest is None
        return ready and self.active is None and not self.objection

    @property
    def earliest_there(self) -> str:
        """`earliest` by the clock of the schedule's time zone, as 'Mon 30 Nov 07:00 CET'."""
        if self.schedule is None or self.earliest is None:
            return ""
        there = self.earliest.astimezone(zone_of(self.schedule))
        return f"{there:%a} {there.day} {there:%b %H:%M} ({there.tzinfo})"


def next_run(project: Project, *, now: dt.datetime | None = None) -> NextRun:
    """Return what the schedule waits for, by the rules of `schedule_due`."""
    now = now or timezone.now()
    runs = project.runs.on_new_examples().select_related("snapshot")
    last = runs.newest_first().first()
    schedule = Schedule.objects.filter(project=project, enabled=True).first()
    fresh = project.examples.all()
    if last is not None:
        fresh = fresh.filter(created_at__gt=last.snapshot.created_at)
    bound = COUNTED if schedule is None else max(COUNTED, schedule.min_new_examples)
    new = counted(fresh, most=bound)
    active = project.runs.active().evaluated().first()
    if schedule is None:
        return NextRun(active, None, new)
    after = now
    if last is not None:
        after = max(now, last.created_at + dt.timedelta(hours=schedule.min_hours))
    quiet = quiet_hours(schedule)
    earliest = after if quiet is None else quiet.over(after)
    return NextRun(
        active,
        schedule,
        new,
        missing=max(0, schedule.min_new_examples - new),
        earliest=earliest if earliest > now else None,
        quiet=earliest > after,
        objection=agreement_objection(schedule),
    )


def zone_of(schedule: Schedule) -> ZoneInfo:
    """Return the time zone of a schedule's quiet hours."""
    return ZoneInfo(schedule.time_zone or settings.SCHEDULE_TIME_ZONE)


def quiet_hours(schedule: Schedule) -> QuietHours | None:
    if schedule.quiet_from is None or schedule.quiet_until is None:
        return None
    return QuietHours(schedule.quiet_from, schedule.quiet_until, zone_of(schedule))


def agreement_objection(schedule: Schedule) -> str:
    """Return why the agreement of the annotators is too low for a run; "" if it is not, or nobody
    can tell yet."""
    if schedule.min_agreement is None:
        return ""
    share = agreed(schedule.project)
    if share is None or 100 * share >= schedule.min_agreement:
        return ""
    return (
        f"Annotators agree on {100 * share:.0f} % of verdicts on the same answer, below "
        f"{schedule.min_agreement} %: see Quality."
    )
