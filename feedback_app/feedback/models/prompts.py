"""Prompts."""

from typing import Any, ClassVar

from django.db import models
from django.db.models import Q

from feedback_app.feedback.models.choices import Source, Split
from feedback_app.feedback.models.projects import Project


class Prompt(models.Model):
    """A conversation that completions answer (messages without the system prompt)."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="prompts")
    messages: Any = models.JSONField()
    content_hash = models.CharField(max_length=64)
    topic = models.CharField(max_length=60, blank=True)
    split = models.CharField(max_length=10, choices=Split.choices)
    source = models.CharField(max_length=10, choices=Source.choices, default=Source.IMPORT)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes: ClassVar = [
            # the questions that the demo suggests: in some projects few prompts have a topic
            models.Index(
                fields=["project", "content_hash"], condition=~Q(topic=""), name="prompt_topics"
            )
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
