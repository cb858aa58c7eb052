"""The claim of a worker on a run."""

from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone

from feedback_app.db.claims import Claim
from feedback_app.feedback.models import Project
from feedback_app.training.models import Erasure, Run, Snapshot


class RunClaim(Claim[Run]):
    """One worker's claim on a run."""

    def cancel_requested(self) -> bool:
        """Return whether a person has asked to cancel the run."""
        return Run.objects.filter(pk=self.row.pk, cancel_requested=True).exists()


def erasing(project: Project) -> bool:
    """Return whether somebody is being erased from a project: its runs begin after that."""
    return Erasure.objects.filter(project=project, finished_at=None).exists()


def startable(runs: QuerySet[Run]) -> QuerySet[Run]:
    """Return those of the runs that a worker may execute: their snapshot has been taken, and nobody
    is being erased from their project, as their votes leave the snapshot before a run reads it."""
    erasing = Erasure.objects.filter(project=OuterRef("project"), finished_at=None)
    return runs.filter(snapshot__status=Snapshot.Status.TAKEN).exclude(Exists(erasing))


def run_claim(run_id: int) -> RunClaim | None:
    """Claim a waiting or abandoned run; None if another worker has it, it has ended, or it is not
    `startable`."""
    runs = Run.objects.filter(pk=run_id)
    # it need not be part of the compare-and-swap: a snapshot that was taken stays so, and an
    # erasure that begins after this records the run
    if not startable(runs).exists():
        return None
    runs = runs.select_related("project", "snapshot", "sweep")
    return RunClaim.take(runs, started_at=Coalesce("started_at", timezone.now()))
