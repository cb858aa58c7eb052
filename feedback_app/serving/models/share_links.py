"""Links that let people without an account use the demo, and their visitors."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from feedback_app.feedback.models import Project


class ShareLink(models.Model):
    """Opens the demo of one version to anyone who has the link, within limits, until it expires."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="share_links")
    # shown to members, not to visitors
    label = models.CharField(max_length=60)
    # the secret's first characters, to recognise the link by, and its SHA-256
    prefix = models.CharField(max_length=12)
    digest = models.CharField(max_length=64, unique=True)
    # 'live', 'base' or an adapter's name
    choice = models.CharField(max_length=80)
    # limits on messages of all visitors, of each visitor, and on votes of all visitors
    messages_limit = models.PositiveIntegerField()
    messages_each = models.PositiveIntegerField()
    votes_limit = models.PositiveIntegerField()
    messages_used = models.PositiveIntegerField(default=0)
    votes_used = models.PositiveIntegerField(default=0)
    # the minute of the latest message, and the number of messages in it
    last_used_at = models.DateTimeField(null=True)
    used_in_minute = models.PositiveIntegerField(default=0)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["project", "-created_at"], name="share_list")]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(messages_used__lte=F("messages_limit"))
                & Q(votes_used__lte=F("votes_limit")),
                name="share_within_limits",
            )
        ]

    def __str__(self) -> str:
        return f"{self.label} ({self.prefix}…)"


class ShareVisitor(models.Model):
    """One browser that uses a link. Its user makes its votes those of one person."""

    link = models.ForeignKey(ShareLink, on_delete=models.CASCADE, related_name="visitors")
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="share_visitor"
    )
    messages_used = models.PositiveIntegerField(default=0)
    last_used_at = models.DateTimeField(null=True)
    used_in_minute = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"visitor {self.pk} of {self.link_id}"
