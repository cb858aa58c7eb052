"""Projects, prompts, completions, votes, and the KTO examples that votes amount to."""

from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from feedback_app.feedback.models_gold import CompletionMarks, VoteMarks
from feedback_app.feedback.models_gold import GoldAnswer as GoldAnswer
from feedback_app.feedback.models_gold import GoldItem as GoldItem
from feedback_app.feedback.models_gold import Pause as Pause
from feedback_app.feedback.models_guidelines import GuidedVote
from feedback_app.feedback.models_guidelines import GuidelinesVersion as GuidelinesVersion
from feedback_app.feedback.models_import import ImportJob as ImportJob
from feedback_app.feedback.models_import import ImportRefusal as ImportRefusal
from feedback_app.feedback.models_queue import QUEUE_INDEXES
from feedback_app.feedback.models_resolution import Resolution as Resolution
from feedback_app.feedback.models_rules import RULE_CONSTRAINTS, ProjectRules
from feedback_app.feedback.models_webhook import Webhook as Webhook
from feedback_app.feedback.models_webhook import WebhookDelivery as WebhookDelivery
from feedback_app.feedback.querysets import (
    CompletionQuerySet,
    ExampleQuerySet,
    ProjectQuerySet,
    VoteQuerySet,
)

#: The version string of the base model itself; adapters are `<slug>@<n>`.
BASE_VERSION = "base"
#: What imported answers stand under: nobody knows which model gave them.
IMPORTED_VERSION = "import"


class Verdict(models.TextChoices):
    """What one person thinks of one completion."""

    UP = "up", "Up"
    DOWN = "down", "Down"


class Source(models.TextChoices):
    """Where a completion or a vote came from."""

    ANNOTATE = "annotate", "Annotation"
    DEMO = "demo", "Demo"
    IMPORT = "import", "Import"
    API = "api", "API"


class QueueOrder(models.TextChoices):
    """What annotators see first. In each, answers with the fewest votes come first."""

    BALANCED = "balanced", "Balanced by prompt"
    NEWEST = "newest", "Newest version first"
    CONTESTED = "contested", "Disagreements first"
    UNSURE = "unsure", "Where the model is unsure"
    UPLOADED = "uploaded", "As they came in"


class Split(models.TextChoices):
    """Which side of the gate an example is on; a hash of the prompt decides."""

    TRAIN = "train", "Training"
    HELDOUT = "heldout", "Held out"


def default_reasons() -> dict[str, list[dict[str, str]]]:
    """Reason chips: keys are stored with votes, labels are shown."""
    return {
        "down": [
            {"key": "wrong", "label": "Wrong fact"},
            {"key": "long", "label": "Too long"},
            {"key": "unfinished", "label": "Not finished"},
            {"key": "off_topic", "label": "Off the point"},
            {"key": "repeats", "label": "Repeats itself"},
        ],
        "up": [
            {"key": "clear", "label": "Clear"},
            {"key": "complete", "label": "Complete"},
            {"key": "concise", "label": "Concise"},
        ],
    }


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
    # of the latest GuidelinesVersion, so that a vote need not look it up
    guidelines_number = models.PositiveIntegerField(default=0, editable=False)
    reasons = models.JSONField(default=default_reasons)
    overlap = models.PositiveSmallIntegerField(default=1)
    # what the desk begins with; its address may say otherwise
    queue_order = models.CharField(
        max_length=9, choices=QueueOrder.choices, default=QueueOrder.BALANCED
    )
    heldout_percent = models.PositiveSmallIntegerField(default=20)
    max_tokens = models.PositiveIntegerField(default=128)
    temperature = models.FloatField(default=0.8)
    top_p = models.FloatField(default=0.95)
    # what answers as 'live': the serving app sets it in the promotion's transaction
    live_version = models.CharField(max_length=80, default=BASE_VERSION)
    # a webhook is told of votes: kept here so that a vote need not look (webhooks/outbox.py)
    votes_told = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ProjectQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(overlap__gte=1) & Q(overlap__lte=10), name="overlap_1_to_10"
            ),
            models.CheckConstraint(
                condition=Q(heldout_percent__gte=5) & Q(heldout_percent__lte=50),
                name="heldout_5_to_50",
            ),
            *RULE_CONSTRAINTS,
        ]

    def __str__(self) -> str:
        return self.name

    def adapter_name(self, number: int) -> str:
        """The public name of this project's adapter `number`."""
        return f"{self.slug}@{number}"


class Prompt(models.Model):
    """The conversation so far that a completion answers (messages without the system prompt)."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="prompts")
    messages: Any = models.JSONField()
    content_hash = models.CharField(max_length=64)
    topic = models.CharField(max_length=60, blank=True)
    split = models.CharField(max_length=8, choices=Split.choices)
    source = models.CharField(max_length=10, choices=Source.choices, default=Source.IMPORT)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["project", "content_hash"], name="one_prompt_per_hash")
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def title(self) -> str:
        """The last thing the user said, for lists."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")


class Completion(CompletionMarks):
    """One answer of one model version to one prompt. Text and token ids never change."""

    class Finish(models.TextChoices):
        STOP = "stop", "Ended by itself"
        LENGTH = "length", "Cut at the token limit"
        ABORTED = "aborted", "Stopped by the reader or a fault"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="completions")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="completions")
    text = models.TextField()
    # of prompt, system prompt and text, so that an import knows what is there already
    content_hash = models.CharField(max_length=64, blank=True)
    # 'base' or the adapter's name; the registry lives a layer above
    version = models.CharField(max_length=80)
    system_prompt = models.TextField(blank=True)
    prompt_token_ids: Any = models.JSONField(null=True)
    token_ids: Any = models.JSONField(null=True)
    finish_reason = models.CharField(max_length=8, choices=Finish.choices)
    source = models.CharField(max_length=10, choices=Source.choices)
    sampling = models.ForeignKey(
        "Sampling", null=True, on_delete=models.SET_NULL, related_name="completions"
    )
    # whether annotators are shown it, and in which order
    queued = models.BooleanField(default=False)
    queue_position = models.PositiveBigIntegerField(default=0)
    # kept in the vote's transaction, so that the queue never counts votes
    vote_count = models.PositiveSmallIntegerField(default=0)
    # there are ups and downs
    contested = models.BooleanField(default=False)
    flagged = models.BooleanField(default=False)
    # on the row so that each order and filter of the queue is one index range:
    # the number in `version` (0: base and imports), and the prompt's topic
    version_number = models.PositiveIntegerField(default=0)
    topic = models.CharField(max_length=60, blank=True)
    # |r − z₀| in nats as the last run that saw it told; small: the model cannot tell
    unsure = models.FloatField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = CompletionQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            *QUEUE_INDEXES,
            models.Index(fields=["project", "version"], name="completion_version"),
            models.Index(fields=["project", "content_hash"], name="completion_content"),
            models.Index(fields=["project"], condition=Q(gold=True), name="completion_gold"),
            models.Index(fields=["project"], condition=Q(flagged=True), name="completion_flagged"),
            models.Index(
                fields=["project"],
                condition=Q(contested=True, decided=""),
                name="completion_contested",
            ),
        ]

    def __str__(self) -> str:
        return self.text[:60]


class Vote(GuidedVote, VoteMarks):
    """One person's verdict on one completion; casting again changes it."""

    completion = models.ForeignKey(Completion, on_delete=models.CASCADE, related_name="votes")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="votes"
    )
    # on the row so that 'my last ten in this project' is one index range
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="votes")
    verdict = models.CharField(max_length=4, choices=Verdict.choices)
    reasons: Any = models.JSONField(default=list)
    comment = models.TextField(blank=True)
    source = models.CharField(max_length=10, choices=Source.choices)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = VoteQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["completion", "user"], name="one_vote_per_person")
        ]
        indexes: ClassVar = [
            models.Index(fields=["project", "user", "-updated_at"], name="vote_recent"),
        ]

    def __str__(self) -> str:
        return f"{self.verdict} by {self.user_id}"


class VoteEvent(GuidedVote):
    """What happened to a vote, in order: cast, changed, undone. Never changed."""

    completion = models.ForeignKey(Completion, on_delete=models.CASCADE, related_name="vote_events")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    # empty: undone
    verdict = models.CharField(max_length=4, choices=Verdict.choices, blank=True)
    source = models.CharField(max_length=10, choices=Source.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(
                fields=["user", "created_at"], condition=Q(verdict=""), name="event_undone"
            )
        ]

    def __str__(self) -> str:
        return f"{self.verdict or 'undone'} by {self.user_id}"


class Example(models.Model):
    """The KTO example that a completion's votes amount to; a tie has none."""

    completion = models.OneToOneField(
        Completion, on_delete=models.CASCADE, related_name="example", primary_key=True
    )
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="examples")
    desirable = models.BooleanField()
    weight = models.FloatField()
    split = models.CharField(max_length=8, choices=Split.choices)
    # number of the last run that finished with it, so that a vote can tell its fate
    used_in_run = models.PositiveIntegerField(null=True)
    # when it first came to be: what a schedule counts as new
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ExampleQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["project", "split", "desirable"], name="example_counts"),
            models.Index(fields=["project", "created_at", "completion"], name="example_newest"),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(weight__gt=0) & Q(weight__lte=1), name="weight_in_0_1"
            )
        ]

    def __str__(self) -> str:
        return f"{'desirable' if self.desirable else 'undesirable'} {self.pk}"


class Lease(models.Model):
    """A completion is on this person's screen until `expires_at`."""

    completion = models.ForeignKey(Completion, on_delete=models.CASCADE, related_name="leases")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="leases"
    )
    taken_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    # an item that came back by undo is shown before the others that the person holds
    front = models.BooleanField(default=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["completion", "user"], name="one_lease_per_person")
        ]
        indexes: ClassVar = [models.Index(fields=["user", "expires_at"], name="lease_of_user")]

    def __str__(self) -> str:
        return f"{self.completion_id} for {self.user_id}"


class Skip(models.Model):
    """A person passed a completion by; others still see it unless it was flagged."""

    completion = models.ForeignKey(Completion, on_delete=models.CASCADE, related_name="skips")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="skips"
    )
    flag = models.BooleanField(default=False)
    reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["completion", "user"], name="one_skip_per_person")
        ]

    def __str__(self) -> str:
        return f"{'flag' if self.flag else 'skip'} of {self.completion_id}"


class Sampling(models.Model):
    """A request to have a version answer the project's prompts, so that people can vote."""

    class Status(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Sampling"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="samplings")
    version = models.CharField(max_length=80, default=BASE_VERSION)
    answers_per_prompt = models.PositiveSmallIntegerField(default=2)
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.QUEUED)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    attempt = models.PositiveSmallIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(done__lte=F("total")), name="sampling_done_in_total")
        ]

    def __str__(self) -> str:
        return f"{self.done} of {self.total} answers"

    @property
    def active(self) -> bool:
        return self.status in (self.Status.QUEUED, self.Status.RUNNING)
