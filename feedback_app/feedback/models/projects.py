"""Projects, their settings and their deletion."""

from secrets import token_hex
from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from feedback_app.db.claims import Claimable
from feedback_app.feedback.models.choices import BASE_VERSION
from feedback_app.feedback.models.rules import RULE_CONSTRAINTS, ProjectRules

#: The least and the most percent of new prompts in a split that is not trained on.
VALIDATION_PERCENT = (5, 30)
TEST_PERCENT = (5, 50)


class QueueOrder(models.TextChoices):
    """The order of the annotation queue; in each, fewest votes come first."""

    BALANCED = "balanced", "Balanced by prompt"
    NEWEST = "newest", "Newest version first"
    CONTESTED = "contested", "Disagreements first"
    UNSURE = "unsure", "Where the model is unsure"
    UPLOADED = "uploaded", "Upload order"


class Reasoning(models.TextChoices):
    """What training does with what a model writes before its answer (trainer/data/reasoning.py)."""

    READ = "read", "Read, not trained on"
    TRAINED = "trained", "Trained on, like the answer"


class Priority(models.TextChoices):
    """A project's share of the workers (training/runs/waiting.py)."""

    LOW = "low", "Low"
    NORMAL = "normal", "Normal"
    HIGH = "high", "High"


def default_reasons() -> dict[str, list[dict[str, str]]]:
    """Return reason chips: keys are stored with votes, labels are shown."""
    return {
        "down": [
            {"key": "wrong", "label": "Wrong fact"},
            {"key": "long", "label": "Too long"},
            {"key": "unfinished", "label": "Not finished"},
            {"key": "off_topic", "label": "Off-topic"},
            {"key": "repeats", "label": "Repeats itself"},
        ],
        "up": [
            {"key": "clear", "label": "Clear"},
            {"key": "complete", "label": "Complete"},
            {"key": "concise", "label": "Concise"},
        ],
    }


def split_key_new() -> str:
    """Return a random key of 256 bits."""
    return token_hex(32)


class Project(ProjectRules):
    """One model behaviour under improvement."""

    # part of adapter names, directories and URLs
    slug = models.SlugField(
        max_length=50,
        unique=True,
        validators=[
            RegexValidator(
                r"^[a-z0-9][a-z0-9-]*\Z", "Use lower-case letters, digits and hyphens only."
            )
        ],
    )
    name = models.CharField(max_length=100)
    base_model = models.CharField(max_length=200)
    system_prompt = models.TextField(blank=True)
    guidelines = models.TextField(blank=True)
    # of the latest GuidelinesVersion; denormalised for votes
    guidelines_number = models.PositiveIntegerField(default=0, editable=False)
    reasons = models.JSONField(default=default_reasons)
    overlap = models.PositiveSmallIntegerField(default=1)
    # the annotation page's default
    queue_order = models.CharField(
        max_length=9, choices=QueueOrder.choices, default=QueueOrder.BALANCED
    )
    # shares of new prompts that are not trained on: `validation_percent` for choosing the adapter
    # of a run, `test_percent` for the gate
    validation_percent = models.PositiveSmallIntegerField(default=10, db_default=10)
    test_percent = models.PositiveSmallIntegerField(default=20, db_default=20)
    # decides the split of new prompts; not derived from SECRET_KEY, which may be replaced
    split_key = models.CharField(max_length=64, default=split_key_new, editable=False)
    max_tokens = models.PositiveIntegerField(default=128)
    temperature = models.FloatField(default=0.8)
    top_p = models.FloatField(default=0.95)
    # variables of the base model's chat template (projects/template_kwargs.py)
    chat_template_kwargs: Any = models.JSONField(default=dict, db_default={}, blank=True)
    # what training does with the reasoning in answers
    reasoning = models.CharField(
        max_length=7, choices=Reasoning.choices, default=Reasoning.READ, db_default=Reasoning.READ
    )
    # the version that answers as 'live'; set in the promotion's transaction
    live_version = models.CharField(max_length=80, default=BASE_VERSION)
    # whether a webhook gets votes; denormalised for votes (webhooks/events.py)
    votes_told = models.BooleanField(default=False)
    # conversations without a message for so many days are deleted; None: never
    conversation_days = models.PositiveSmallIntegerField(null=True, blank=True)
    # what starts its runs; empty: TRAINER_LAUNCHER (training/launchers/selection.py)
    launcher = models.CharField(max_length=20, blank=True, default="", db_default="")
    # worker hours after which a run is ended; None: the installation's limit alone
    run_hours = models.FloatField(null=True, blank=True)
    priority = models.CharField(
        max_length=6,
        choices=Priority.choices,
        default=Priority.NORMAL,
        db_default=Priority.NORMAL,
        editable=False,
    )
    # read-only since then (projects/archive.py)
    archived_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(overlap__gte=1) & Q(overlap__lte=10), name="overlap_1_to_10"
            ),
            models.CheckConstraint(
                condition=Q(validation_percent__gte=VALIDATION_PERCENT[0])
                & Q(validation_percent__lte=VALIDATION_PERCENT[1]),
                name="validation_5_to_30",
            ),
            models.CheckConstraint(
                condition=Q(test_percent__gte=TEST_PERCENT[0])
                & Q(test_percent__lte=TEST_PERCENT[1]),
                name="test_5_to_50",
            ),
            *RULE_CONSTRAINTS,
        ]

    def __str__(self) -> str:
        return self.name

    def adapter_name(self, number: int) -> str:
        """Return the public name of this project's adapter `number`."""
        return f"{self.slug}@{number}"


class ProjectDeletion(Claimable):
    """The deletion of a project by a worker (serving/project_deletion).

    From its creation on the project has no members. Afterwards the project's row is empty: it keeps
    the address, which names versions and is not used again, and the audit trail refers to it.
    """

    CLAIMED: ClassVar[dict[str, Any]] = {}

    project = models.OneToOneField(
        Project, on_delete=models.CASCADE, related_name="deletion", primary_key=True
    )
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    # the part that is being deleted, from 0 (serving/project_deletion/parts.py)
    part = models.PositiveSmallIntegerField(default=0)
    # deleted rows by the label of their model, such as "feedback.Vote", and "files"
    counts: Any = models.JSONField(default=dict)
    # why it waits, such as an artifact store that does not answer
    problem = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["-created_at"], name="deletion_list")]

    def __str__(self) -> str:
        return f"deletion of project {self.project_id}"

    @classmethod
    def waiting(cls) -> Q:
        return Q(finished_at=None, heartbeat_at=None)

    @classmethod
    def working(cls) -> Q:
        return Q(finished_at=None, heartbeat_at__isnull=False)
