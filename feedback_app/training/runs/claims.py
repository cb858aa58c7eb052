"""Which worker owns a run: compare-and-swap on its attempt number, kept by heartbeats."""

from dataclasses import dataclass
from typing import Any

from django.db.models import F
from django.utils import timezone

from feedback_app.training.models import Run


@dataclass(frozen=True)
class Claim:
    """One worker's hold on a run. Every write goes through it, so a lost claim writes nothing."""

    run: Run
    attempt: int

    def update(self, **fields: Any) -> bool:
        """Writes fields of the run if it is still ours and not ended; False if it is not."""
        return bool(
            Run.objects.filter(pk=self.run.pk, attempt=self.attempt, status__in=Run.WORKING).update(
                **fields
            )
        )

    def heartbeat(self, **fields: Any) -> bool:
        """Says that the work goes on; False means: stop, somebody else has taken the run up."""
        return self.update(heartbeat_at=timezone.now(), **fields)

    def cancel_requested(self) -> bool:
        return Run.objects.filter(pk=self.run.pk, cancel_requested=True).exists()


def run_claim(run_id: int) -> Claim | None:
    """Takes a waiting or abandoned run. None: another worker was faster, or nothing is to do."""
    run = Run.objects.claimable().filter(pk=run_id).first()
    if run is None:
        return None
    now = timezone.now()
    # nothing updated: another worker got there first
    taken = (
        Run.objects.claimable()
        .filter(pk=run_id, attempt=run.attempt)
        .update(
            attempt=F("attempt") + 1,
            status=Run.Status.RUNNING,
            heartbeat_at=now,
            started_at=run.started_at or now,
        )
    )
    if not taken:
        return None
    claimed = Run.objects.select_related("project", "snapshot").get(pk=run_id)
    return Claim(run=claimed, attempt=run.attempt + 1)
