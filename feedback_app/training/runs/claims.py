"""The claim of a worker on a run."""

from django.db.models.functions import Coalesce
from django.utils import timezone

from feedback_app.db.claims import Claim
from feedback_app.training.models import Run


class RunClaim(Claim[Run]):
    """One worker's claim on a run."""

    def cancel_requested(self) -> bool:
        """Return whether a person has asked to cancel the run."""
        return Run.objects.filter(pk=self.row.pk, cancel_requested=True).exists()


def run_claim(run_id: int) -> RunClaim | None:
    """Claim a waiting or abandoned run; None if another worker has it, it has ended, or its
    snapshot has not been taken."""
    # a snapshot that was taken stays so: it need not be part of the compare-and-swap
    runs = Run.objects.with_snapshot().select_related("project", "snapshot", "sweep")
    runs = runs.filter(pk=run_id)
    return RunClaim.take(runs, started_at=Coalesce("started_at", timezone.now()))
