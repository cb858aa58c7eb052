"""Training runs, their measures and their notes."""

from pathlib import Path
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from feedback_app.db.claims import Claimable
from feedback_app.feedback.models import Project
from feedback_app.training.models.snapshots import Snapshot
from feedback_app.training.models.sweeps import Sweep
from feedback_app.training.querysets import RunQuerySet


class Run(Claimable):
    """One training run: config + snapshot → adapter or failure."""

    class Status(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Training"
        EVALUATING = "evaluating", "Comparing"
        SUCCEEDED = "succeeded", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"
        # ends of a trial: without the gate
        TRAINED = "trained", "Trained"
        STOPPED = "stopped", "Stopped early"

    class Trigger(models.TextChoices):
        PERSON = "person", "By hand"
        SCHEDULE = "schedule", "By schedule"
        ERASURE = "erasure", "After an erasure"
        IMPORTED = "imported", "Imported"
        SWEEP = "sweep", "By a sweep"
        WITHOUT = "without", "Without a group of votes"

    #: Phases of the trainer while it trains, as the page of a run names them.
    PHASES: ClassVar[dict[str, str]] = {
        "loading": "Loading the model",
        "reference": "Scoring the examples with the base model",
        "training": "Training",
        "saving": "Saving the adapter",
    }
    ACTIVE = (Status.QUEUED, Status.RUNNING, Status.EVALUATING)
    WORKING = (Status.RUNNING, Status.EVALUATING)
    #: Ended without a failure: nothing resumes from their checkpoints.
    DONE = (Status.SUCCEEDED, Status.TRAINED, Status.STOPPED)

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="runs")
    number = models.PositiveIntegerField()
    snapshot = models.ForeignKey(Snapshot, on_delete=models.PROTECT, related_name="runs")
    # the run that this one repeats without what was erased since (training/forgetting)
    retrains = models.ForeignKey(
        "self",
        null=True,
        on_delete=models.SET_NULL,
        related_name="retrainings",
        db_index=False,  # by an index of the few rows that have it
    )
    # the sweep that this run is a trial of
    sweep = models.ForeignKey(
        Sweep,
        null=True,
        on_delete=models.CASCADE,
        related_name="trials",
        db_index=False,  # by an index of the few rows that have it
    )
    # False: a trial, which ends without the gate and makes no version unless it is chosen
    evaluates = models.BooleanField(default=True, db_default=True)
    config: Any = models.JSONField(default=dict)
    trigger = models.CharField(max_length=8, choices=Trigger.choices)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    auto_release = models.BooleanField(default=False)
    # of the web request or task that queued it: in the logs of worker, trainer and engine too
    request_id = models.CharField(max_length=64, blank=True)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.QUEUED)
    cancel_requested = models.BooleanField(default=False)
    dispatched_at = models.DateTimeField(null=True)
    # offset up to which the trainer's events have been read
    events_offset = models.PositiveBigIntegerField(default=0)
    phase = models.CharField(max_length=20, blank=True)
    progress_done = models.PositiveIntegerField(default=0)
    progress_total = models.PositiveIntegerField(default=0)
    eta_seconds = models.FloatField(null=True)
    # lambda_d, lambda_u, device and others, as reported by the trainer at its start
    facts: Any = models.JSONField(default=dict)
    # [step, loss, ranking] on the validation examples at each probe (sweeps/probes.py)
    probes: Any = models.JSONField(null=True)
    # of a trial that was not chosen: when its adapter's files were deleted
    adapter_deleted_at = models.DateTimeField(null=True)
    # what was expected when it was queued: minutes, and the chance to pass (gate/chance.py)
    forecast: Any = models.JSONField(null=True)
    # how the examples fit the trained model (runs/fit.py), set when the run succeeds
    fit: Any = models.JSONField(null=True)
    error = models.TextField(blank=True)
    # False once the trainer has failed in a way that the same settings would repeat
    resumable = models.BooleanField(default=True, db_default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["project", "number"], name="run_number"),
            models.UniqueConstraint(
                fields=["project"],
                condition=Q(status__in=["queued", "running", "evaluating"], evaluates=True),
                name="one_run_in_progress",
            ),
            # comparing several at the gate would choose by the test split
            models.UniqueConstraint(
                fields=["sweep"],
                condition=Q(sweep__isnull=False, evaluates=True),
                name="one_chosen_trial",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["status", "heartbeat_at"], name="run_dispatch"),
            models.Index(
                fields=["retrains"], condition=Q(retrains__isnull=False), name="run_retrains"
            ),
            models.Index(fields=["sweep"], condition=Q(sweep__isnull=False), name="run_sweep"),
        ]

    def __str__(self) -> str:
        return f"Run {self.number}"

    @classmethod
    def working(cls) -> Q:
        return Q(status__in=cls.WORKING)

    @property
    def active(self) -> bool:
        return self.status in self.ACTIVE

    @property
    def trains(self) -> bool:
        """Whether it learns from examples; an imported version did that elsewhere."""
        return self.trigger != self.Trigger.IMPORTED

    @property
    def tree(self) -> str:
        """Return the name of the run's directory in the artifact store."""
        return f"runs/{self.pk}"

    @property
    def directory(self) -> Path:
        """Return the working directory of the trainer, on this host."""
        return Path(settings.ARTIFACT_ROOT) / self.tree

    @property
    def phase_label(self) -> str:
        return self.PHASES.get(self.phase, self.phase.capitalize()) or "Starting"

    @property
    def percent(self) -> int:
        """Return the progress of the current phase, 0 to 100."""
        if not self.progress_total:
            return 0
        return min(100, round(100 * self.progress_done / self.progress_total))


class RunMetric(models.Model):
    """One optimiser step of a run, as the trainer reported it. Rewards and KL in nats."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="metrics")
    step = models.PositiveIntegerField()
    loss = models.FloatField()
    kl = models.FloatField()
    kl_unclamped = models.FloatField()
    reward_desirable = models.FloatField(null=True)
    reward_undesirable = models.FloatField(null=True)
    completion_tokens = models.FloatField(null=True)
    learning_rate = models.FloatField()
    grad_norm = models.FloatField()
    seconds = models.FloatField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["run", "step"], name="one_metric_per_step")
        ]

    def __str__(self) -> str:
        return f"step {self.step}"


class RunNote(models.Model):
    """A line of a run's log: warnings, probes, checkpoints, resumptions, failures."""

    class Level(models.TextChoices):
        INFO = "info", "Info"
        WARNING = "warning", "Warning"
        ERROR = "error", "Error"

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="notes")
    level = models.CharField(max_length=7, choices=Level.choices, default=Level.INFO)
    text = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.text[:80]
