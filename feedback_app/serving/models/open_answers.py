"""Answers that are being generated, so that their number per person is limited."""

from typing import ClassVar

from django.db import models


class OpenAnswer(models.Model):
    """One of the answers that a person, token or share link may have generated at a time."""

    # 'user-1', 'token-1' or 'link-1'
    key = models.CharField(max_length=40)
    # from 0 up to the limit of its kind
    number = models.PositiveSmallIntegerField()
    # renewed while the answer is generated; past if its process was killed
    until = models.DateTimeField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["key", "number"], name="one_open_answer_a_number")
        ]

    def __str__(self) -> str:
        return f"{self.key} {self.number}"
