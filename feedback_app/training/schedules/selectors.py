"""When the next run of a project starts, and why not yet."""

import datetime as dt
from dataclasses import dataclass

from django.utils import timezone

from feedback_app.db.bounded_count import COUNTED, counted
from feedback_app.feedback.models import Project
from feedback_app.training.models import Run, Schedule


@dataclass(frozen=True)
class NextRun:
    """`active` is the run in progress, if there is one. Otherwise a schedule that is on starts the
    next run once `missing` more examples have come in, and not before `earliest`.

    `new_examples` came in since the last run; the number is bounded by `bounded_count.COUNTED`.
    """

    active: Run | None
    schedule: Schedule | None
    new_examples: int
    missing: int = 0
    earliest: dt.datetime | None = None

    @property
    def due(self) -> bool:
        """Return whether the schedule starts a run at its next look, unless the run is refused."""
        ready = self.schedule is not None and not self.missing and self.earliest is None
        return ready and self.active is None


def next_run(project: Project, *, now: dt.datetime | None = None) -> NextRun:
    """Return what the schedule waits for, by the rules of `schedule_due`."""
    now = now or timezone.now()
    last = project.runs.on_new_examples().newest_first().first()
    schedule = Schedule.objects.filter(project=project, enabled=True).first()
    fresh = project.examples.all()
    if last is not None:
        fresh = fresh.filter(created_at__gt=last.created_at)
    bound = COUNTED if schedule is None else max(COUNTED, schedule.min_new_examples)
    new = counted(fresh, most=bound)
    active = project.runs.active().first()
    if schedule is None:
        return NextRun(active, None, new)
    earliest = None if last is None else last.created_at + dt.timedelta(hours=schedule.min_hours)
    return NextRun(
        active,
        schedule,
        new,
        missing=max(0, schedule.min_new_examples - new),
        earliest=earliest if earliest is not None and earliest > now else None,
    )
