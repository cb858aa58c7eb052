"""Prompts, and probes: prompts whose answers the gate checks."""

from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Q, QuerySet

from feedback_app.feedback.models.choices import Source, Split
from feedback_app.feedback.models.projects import Project


class PromptQuerySet(QuerySet["Prompt"]):
    def active(self) -> Self:
        return self.filter(retired_at=None)

    def asked(self) -> Self:
        """Active prompts that samplings ask: not those of the demo and of the gateway's users."""
        return self.active().filter(source=Source.IMPORT)


class Prompt(models.Model):
    """A conversation that completions answer (messages without the system prompt)."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="prompts")
    messages: Any = models.JSONField()
    content_hash = models.CharField(max_length=64)
    topic = models.CharField(max_length=60, blank=True)
    split = models.CharField(max_length=10, choices=Split.choices)
    source = models.CharField(max_length=10, choices=Source.choices, default=Source.IMPORT)
    created_at = models.DateTimeField(auto_now_add=True)
    # null: active, so samplings and the gate ask it; answers and votes of a retired one stay
    retired_at = models.DateTimeField(null=True, editable=False)

    objects = PromptQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(
                fields=["project", "-id"], condition=Q(retired_at=None), name="prompts_active"
            ),
            models.Index(
                fields=["project", "-retired_at", "-id"],
                condition=Q(retired_at__isnull=False),
                name="prompts_retired",
            ),
            # the questions that the demo suggests: in some projects few prompts have a topic
            models.Index(
                fields=["project", "content_hash"], condition=~Q(topic=""), name="prompt_topics"
            ),
            # the choices of a filter by topic
            models.Index(
                fields=["project", "topic"], condition=~Q(topic=""), name="prompt_topic_names"
            ),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["project", "content_hash"], name="one_prompt_per_hash")
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def title(self) -> str:
        """The last user message, for lists."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")

    @property
    def ends_with_tool(self) -> bool:
        """Whether a tool's result is last, so that what is answered is no person's text alone."""
        return bool(self.messages) and self.messages[-1]["role"] == "tool"

    @property
    def tools(self) -> str:
        """The definitions of tools that came with the conversation, JSON as text, or ""."""
        return str(self.messages[0].get("tools", "")) if self.messages else ""

    @property
    def before_title(self) -> list[Any]:
        """The messages before the last user message."""
        asked = [number for number, m in enumerate(self.messages) if m["role"] == "user"]
        return list(self.messages[: asked[-1]]) if asked else []


class Probe(models.Model):
    """A prompt whose answers must, or must not, contain something. Never changed, only retired."""

    class Kind(models.TextChoices):
        CONTAINS = "contains", "contains"
        LACKS = "lacks", "does not contain"
        MATCHES = "matches", "matches"
        NOT_MATCHES = "not_matches", "does not match"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="probes")
    messages: Any = models.JSONField()
    kind = models.CharField(max_length=11, choices=Kind.choices)
    # a text in any case for the first two kinds, a regular expression for the others
    pattern = models.CharField(max_length=500)
    note = models.CharField(max_length=200, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    # the answer it was made from. A person's erasure deletes the questions that only they asked,
    # and with them the copies here.
    completion = models.ForeignKey(
        "feedback.Completion", null=True, on_delete=models.CASCADE, related_name="probes"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    # null: active, so the gate checks it
    retired_at = models.DateTimeField(null=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(
                fields=["project", "-id"], condition=Q(retired_at=None), name="probes_active"
            ),
            models.Index(
                fields=["project", "-retired_at", "-id"],
                condition=Q(retired_at__isnull=False),
                name="probes_retired",
            ),
        ]

    def __str__(self) -> str:
        return f"probe {self.pk}"

    @property
    def title(self) -> str:
        """The last user message, for lists."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")
