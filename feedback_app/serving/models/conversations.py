"""Conversations in the demo."""

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.db import models

from feedback_app.feedback.models import Completion, Project


class Conversation(models.Model):
    """A person's conversation in the demo."""

    LIVE = "live"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="conversations")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="conversations"
    )
    title = models.CharField(max_length=120, blank=True)
    # the chosen version: 'live', 'base' or an adapter's name
    choice = models.CharField(max_length=80, default=LIVE)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["project", "user", "-updated_at"], name="conversation_recent")
        ]

    def __str__(self) -> str:
        return self.title or "New conversation"


class Turn(models.Model):
    """A user message and its completion (empty while it streams)."""

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="turns")
    position = models.PositiveIntegerField()
    user_message = models.TextField()
    completion = models.ForeignKey(
        Completion, null=True, on_delete=models.SET_NULL, related_name="turns"
    )
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["conversation", "position"], name="one_turn_a_position")
        ]
        ordering: ClassVar = ["position"]

    def __str__(self) -> str:
        return self.user_message[:60]

    def as_messages(self) -> list[dict[str, Any]]:
        """Return the turn as chat messages; without an answer only the user's."""
        messages = [{"role": "user", "content": self.user_message}]
        if self.completion is not None:
            messages.append({"role": "assistant", "content": self.completion.text})
        return messages
