"""Corrected answers: what a person wrote in place of a model's answer."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q


class Correction(models.Model):
    """One person's correction of one answer; a withdrawn one no longer counts.

    The answer has their down vote, the corrected text is a completion of its own with their up.
    """

    original = models.ForeignKey(
        "feedback.Completion", on_delete=models.CASCADE, related_name="corrections"
    )
    completion = models.OneToOneField(
        "feedback.Completion", on_delete=models.CASCADE, related_name="correction"
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="corrections"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    # kept, so that the text is found when its writer is erased
    withdrawn_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["original", "user"],
                condition=Q(withdrawn_at=None),
                name="one_correction_per_person",
            )
        ]

    def __str__(self) -> str:
        return f"of {self.original_id} by {self.user_id}"
