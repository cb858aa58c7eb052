"""The worker time of a sweep."""

from django.utils import timezone

from feedback_app.training.models import Run, Sweep


def hours_spent(sweep: Sweep, *, besides: Run | None = None) -> float:
    """Return the worker hours of all trials so far, or of all but one."""
    now = timezone.now()
    rows = sweep.trials.filter(evaluates=False, started_at__isnull=False)
    seconds = 0.0
    for trial in rows.defer("config", "facts", "probes"):
        if trial.started_at is not None and trial != besides:
            end = trial.finished_at or trial.heartbeat_at or now
            seconds += max(0.0, (end - trial.started_at).total_seconds())
    return seconds / 3600
