"""Models of training: snapshots, runs, schedules, adapters, gates, blind pairs and erasures."""

from pathlib import Path
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from feedback_app.db.claims import Claimable
from feedback_app.feedback.models import Completion, Project, Prompt, Split
from feedback_app.training.querysets import (
    AdapterQuerySet,
    BlindPairQuerySet,
    ErasureQuerySet,
    PairBatchQuerySet,
    RunQuerySet,
)


class Snapshot(models.Model):
    """The frozen examples of a run. The rows are the truth, the file is a copy."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="snapshots")
    train_up = models.PositiveIntegerField()
    train_down = models.PositiveIntegerField()
    validation_up = models.PositiveIntegerField(default=0, db_default=0)
    validation_down = models.PositiveIntegerField(default=0, db_default=0)
    test_up = models.PositiveIntegerField(default=0, db_default=0)
    test_down = models.PositiveIntegerField(default=0, db_default=0)
    # examples left out by the cap on the votes of one person
    left_out = models.PositiveIntegerField(default=0)
    left_out_people = models.PositiveIntegerField(default=0)
    # SHA-256 over the training file, set when it is written
    sha256 = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.train_up} up, {self.train_down} down"

    @property
    def train_total(self) -> int:
        return self.train_up + self.train_down

    @property
    def validation_total(self) -> int:
        return self.validation_up + self.validation_down

    @property
    def test_total(self) -> int:
        return self.test_up + self.test_down


class SnapshotItem(models.Model):
    """An example as it was when the snapshot was taken."""

    snapshot = models.ForeignKey(Snapshot, on_delete=models.CASCADE, related_name="items")
    completion = models.ForeignKey(
        Completion, on_delete=models.CASCADE, related_name="snapshot_items"
    )
    desirable = models.BooleanField()
    weight = models.FloatField()
    split = models.CharField(max_length=10, choices=Split.choices)
    # reward of the trained policy and z0 of its step, in nats; empty until the run has ended
    reward = models.FloatField(null=True)
    reference_point = models.FloatField(null=True)
    # by how many nats the reward is on the label's side of z0: the order of the explorer
    margin = models.FloatField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["snapshot", "completion"], name="once_per_snapshot")
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["snapshot", "margin", "id"],
                condition=Q(margin__isnull=False),
                name="item_by_margin",
            )
        ]

    def __str__(self) -> str:
        return f"{self.completion_id} in {self.snapshot_id}"

    @property
    def distance(self) -> float:
        """The size of the margin."""
        return abs(self.margin or 0.0)


class Run(Claimable):
    """One training run: config + snapshot → adapter or failure."""

    class Status(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Training"
        EVALUATING = "evaluating", "Comparing"
        SUCCEEDED = "succeeded", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    class Trigger(models.TextChoices):
        PERSON = "person", "By hand"
        SCHEDULE = "schedule", "By schedule"
        ERASURE = "erasure", "After an erasure"
        IMPORTED = "imported", "Imported"

    #: Phases of the trainer while it trains, as the page of a run names them.
    PHASES: ClassVar[dict[str, str]] = {
        "loading": "Loading the model",
        "reference": "Scoring the examples with the base model",
        "training": "Training",
        "saving": "Saving the adapter",
    }
    ACTIVE = (Status.QUEUED, Status.RUNNING, Status.EVALUATING)
    WORKING = (Status.RUNNING, Status.EVALUATING)

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
                condition=Q(status__in=["queued", "running", "evaluating"]),
                name="one_active_run_per_project",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["status", "heartbeat_at"], name="run_dispatch"),
            models.Index(
                fields=["retrains"], condition=Q(retrains__isnull=False), name="run_retrains"
            ),
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


class GateOutcome(models.TextChoices):
    """What the gate says of a version."""

    PASSED = "passed", "Passed"
    FAILED = "failed", "Failed"
    UNDECIDED = "undecided", "Not enough evidence"


class GateRules(models.Model):
    """The rules of a project's gate (gate/settings.py). Never changed: saving adds a version."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="gate_rules")
    number = models.PositiveIntegerField()
    rules: Any = models.JSONField()
    saved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["project", "number"], name="gate_rules_number")
        ]

    def __str__(self) -> str:
        return f"gate rules {self.number}"


class Judge(models.Model):
    """A model behind an OpenAI-compatible URL that compares answers for a project's gate."""

    project = models.OneToOneField(
        Project, on_delete=models.CASCADE, related_name="judge", primary_key=True
    )
    url = models.CharField(max_length=500)
    model = models.CharField(max_length=200)
    # encrypted (accounts/sealing.py); empty for a server that asks for none
    api_key = models.TextField(blank=True)
    saved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.model} at {self.url}"


class Adapter(models.Model):
    """An immutable LoRA version `<project>@<n>`, with the number of its run."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="adapters")
    run = models.OneToOneField(Run, on_delete=models.PROTECT, related_name="adapter")
    name = models.CharField(max_length=80, unique=True)
    # relative to ARTIFACT_ROOT, so that hosts may mount it anywhere
    path = models.CharField(max_length=300)
    sha256 = models.CharField(max_length=64)
    # measures and answers of new, live and base, as reported by the evaluation
    report: Any = models.JSONField(default=dict)
    gate: Any = models.JSONField(default=dict)
    # the gate's verdict; gate_won: whether it is "passed"
    gate_outcome = models.CharField(max_length=9, choices=GateOutcome.choices, blank=True)
    gate_won = models.BooleanField(default=False)
    discarded_at = models.DateTimeField(null=True)
    # it learned from what was erased since: discarded for good
    locked_at = models.DateTimeField(null=True)
    # without files from then on: after an erasure, or long after it was discarded
    deleted_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AdapterQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def directory(self) -> Path:
        """Return where the files are on this host, once they were fetched (registry/files.py)."""
        return Path(settings.ARTIFACT_ROOT) / self.path


class PairBatch(models.Model):
    """A version's answers beside live's, for people to judge blind (gate/people).

    It ends once: from `decided_at` on the verdict of `counts` is in the version's gate report.
    """

    class End(models.TextChoices):
        """Why a batch has ended; an open one has none."""

        DECIDED = "decided", "Decided"
        JUDGED = "judged", "All pairs judged"
        CLOSED = "closed", "Closed by an admin"

    adapter = models.OneToOneField(
        "training.Adapter", on_delete=models.CASCADE, related_name="pair_batch"
    )
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="pair_batches")
    # prompts to which both versions gave the same answer: ties, which nobody is asked about
    same = models.PositiveIntegerField(default=0)
    end = models.CharField(max_length=7, choices=End.choices, blank=True)
    ended_at = models.DateTimeField(null=True)
    # the votes as they were at the end (gate/people/counts.py)
    counts: Any = models.JSONField(default=dict)
    decided_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = PairBatchQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["project"], condition=Q(end=""), name="pair_batch_open"),
            models.Index(fields=["ended_at"], condition=Q(decided_at=None), name="pair_batch_due"),
        ]

    def __str__(self) -> str:
        return f"pairs of {self.adapter_id}"


class BlindPair(models.Model):
    """One prompt with the first answers of the candidate and live. Deleted with the prompt."""

    batch = models.ForeignKey(PairBatch, on_delete=models.CASCADE, related_name="pairs")
    position = models.PositiveIntegerField()
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="+")
    messages: Any = models.JSONField()
    candidate_text = models.TextField(blank=True)
    live_text = models.TextField(blank=True)

    objects = BlindPairQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["batch", "position"], name="blind_pair_position")
        ]

    def __str__(self) -> str:
        return f"pair {self.position + 1}"


class PairVote(models.Model):
    """One person's choice between the answers of a blind pair; choosing again changes it."""

    class Choice(models.TextChoices):
        CANDIDATE = "candidate", "The candidate"
        LIVE = "live", "Live"
        TIE = "tie", "No difference"
        SKIP = "skip", "Skipped"

    class Side(models.TextChoices):
        """The choice as the person saw it; it names no version."""

        LEFT = "left", "A is better"
        RIGHT = "right", "B is better"
        TIE = "tie", "No difference"
        SKIP = "skip", "Skipped"

    pair = models.ForeignKey(BlindPair, on_delete=models.CASCADE, related_name="votes")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="pair_votes"
    )
    choice = models.CharField(max_length=9, choices=Choice.choices)
    side = models.CharField(max_length=5, choices=Side.choices)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["pair", "user"], name="one_pair_vote_per_person")
        ]
        indexes: ClassVar = [models.Index(fields=["user", "-updated_at"], name="pair_vote_recent")]

    def __str__(self) -> str:
        return f"{self.choice} by {self.user_id}"


class Schedule(models.Model):
    """When to train automatically, and whether to release when the gate passes."""

    project = models.OneToOneField(
        Project, on_delete=models.CASCADE, related_name="schedule", primary_key=True
    )
    enabled = models.BooleanField(default=False)
    min_new_examples = models.PositiveIntegerField(default=50)
    min_hours = models.FloatField(default=24)
    # no run starts while the annotators agree on fewer percent of their shared answers
    min_agreement = models.PositiveSmallIntegerField(null=True)
    # no run starts between these times of day, in `time_zone`
    quiet_from = models.TimeField(null=True)
    quiet_until = models.TimeField(null=True)
    # IANA name; empty: SCHEDULE_TIME_ZONE
    time_zone = models.CharField(max_length=64, blank=True, default="", db_default="")
    auto_release = models.BooleanField(default=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(min_new_examples__gte=1), name="schedule_examples"),
            models.CheckConstraint(condition=Q(min_hours__gte=0), name="schedule_hours"),
            models.CheckConstraint(
                condition=Q(min_agreement=None) | Q(min_agreement__gte=1, min_agreement__lte=100),
                name="schedule_agreement",
            ),
            models.CheckConstraint(
                condition=Q(quiet_from=None, quiet_until=None)
                | Q(quiet_from__isnull=False, quiet_until__isnull=False),
                name="schedule_quiet_hours",
            ),
        ]

    def __str__(self) -> str:
        return f"every {self.min_new_examples} examples"


class Erasure(Claimable):
    """The removal of a person's votes, or of an answer with its example, from a project, and which
    runs had used them.

    The row is created before anything is deleted and finished at the end, so that another worker
    can resume an interrupted erasure. It holds no name, only the id of the deleted account or
    answer. Versions that had used it are gone at `deleted_at`, soon after `due_at`.
    """

    CLAIMED: ClassVar[dict[str, Any]] = {}

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="erasures")
    # one of both: the account's id, or the id of the answer
    person = models.PositiveBigIntegerField(null=True)
    completion = models.PositiveBigIntegerField(null=True)
    # the account is deleted as well
    account = models.BooleanField()
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    votes = models.PositiveIntegerField(default=0)
    examples_gone = models.PositiveIntegerField(default=0)
    examples_changed = models.PositiveIntegerField(default=0)
    # numbers of the runs whose snapshots had used the votes
    runs: Any = models.JSONField(default=list)
    # by when no version that used it is left; empty: none had used it
    due_at = models.DateTimeField(null=True)
    # when the last of them was deleted
    deleted_at = models.DateTimeField(null=True)
    # why no run without it can be started
    problem = models.TextField(blank=True, default="", db_default="")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    objects = ErasureQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(person=None, completion__isnull=False)
                | Q(person__isnull=False, completion=None),
                name="erasure_of_one",
            )
        ]
        indexes: ClassVar = [
            models.Index(fields=["project", "-created_at"], name="erasure_list"),
            models.Index(
                fields=["project"],
                condition=Q(due_at__isnull=False, deleted_at=None),
                name="erasure_pending",
            ),
            models.Index(
                fields=["person"], condition=Q(finished_at=None), name="erasure_unfinished"
            ),
        ]

    def __str__(self) -> str:
        return f"erasure of {self.subject}"

    @classmethod
    def waiting(cls) -> Q:
        return Q(finished_at=None, heartbeat_at=None)

    @classmethod
    def working(cls) -> Q:
        return Q(finished_at=None, heartbeat_at__isnull=False)

    @property
    def subject(self) -> str:
        """Return what was erased, by its number."""
        if self.person is None:
            return f"answer {self.completion}"
        return f"person {self.person}"

    @property
    def adapter_names(self) -> list[str]:
        """Return the versions that the votes helped to train."""
        return [self.project.adapter_name(number) for number in self.runs]
