"""Conversations in the demo."""

import uuid
from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Q, QuerySet

from feedback_app.feedback.models import Completion, Project


class ConversationQuerySet(QuerySet["Conversation"]):
    def kept(self) -> Self:
        """Those that people see: neither deleted by their owner nor past the retention."""
        return self.filter(removed_at=None)


class Conversation(models.Model):
    """A person's conversation: in the demo, through a share link, or with the gateway."""

    LIVE = "live"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="conversations")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="conversations"
    )
    title = models.CharField(max_length=120, blank=True)
    # the chosen version: 'live', 'base' or an adapter's name
    choice = models.CharField(max_length=80, default=LIVE)
    # what an admin tries in this conversation alone; None: the project's
    system_prompt = models.TextField(null=True)  # noqa: DJ001 - empty means without one
    temperature = models.FloatField(null=True)
    # deleted, but for turns whose answers are examples (conversations/removal.py)
    removed_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["project", "user", "-updated_at"], name="conversation_recent"),
            # the log of a project, and what is past its retention
            models.Index(
                fields=["project", "-updated_at", "-id"],
                condition=Q(removed_at=None),
                name="conversation_log",
            ),
        ]

    def __str__(self) -> str:
        return self.title or "New conversation"


class TurnQuerySet(QuerySet["Turn"]):
    def shown(self) -> Self:
        """The turns of the branch that is shown, in order."""
        return self.filter(position__isnull=False).order_by("position")


class Turn(models.Model):
    """A user message and its completion (empty while it streams).

    The turns of a conversation are a tree: another answer, or another question, is a turn with the
    same parent. One branch is shown; its turns have positions.
    """

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="turns")
    # the turn before; None: the conversation begins here
    parent = models.ForeignKey(
        "self", null=True, on_delete=models.CASCADE, related_name="children", db_index=False
    )
    # from 0; None: on another branch than the one that is shown
    position = models.PositiveIntegerField(null=True)
    user_message = models.TextField()
    completion = models.ForeignKey(
        Completion, null=True, on_delete=models.SET_NULL, related_name="turns"
    )
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = TurnQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["conversation", "position"], name="one_turn_a_position")
        ]
        indexes: ClassVar = [models.Index(fields=["parent"], name="turn_children")]
        ordering: ClassVar = ["position"]

    def __str__(self) -> str:
        return self.user_message[:60]

    def as_messages(self) -> list[dict[str, Any]]:
        """Return the turn as chat messages; without an answer only the user's."""
        messages = [{"role": "user", "content": self.user_message}]
        if self.completion is not None:
            messages.append({"role": "assistant", "content": self.completion.text})
        return messages
