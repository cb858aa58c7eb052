"""The worker time of a sweep."""

from django.utils import timezone

from feedback_app.training.models import Run, Sweep


def hours_spent(sweep: Sweep, *, besides: Run | None = None) -> float:
    """Return the worker hours of all trials so far, or of all but one."""
    now = timezone.now()
    rows = sweep.trials.filter(evaluates=False, started_at__isnull=False)
    if besides is not None:
        rows = rows.exclude(pk=besides.pk)
    times = rows.values_list("started_at", "finished_at", "heartbeat_at")
    ends = ((started, finished or heartbeat or now) for started, finished, heartbeat in times)
    return sum(max(0.0, (end - started).total_seconds()) for started, end in ends) / 3600
