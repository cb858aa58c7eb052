"""Version diffs: twenty fixed prompts, and every version's answers."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from feedback_app.db.claims import Claimable
from feedback_app.feedback.models import BASE_VERSION, Completion, Project, Prompt
from feedback_app.training.models import Adapter


class FixedPrompt(models.Model):
    """A validation prompt that every version of the project answers. Chosen once."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="fixed_prompts")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="+")
    position = models.PositiveSmallIntegerField()

    class Meta:
        ordering: ClassVar = ["position"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["project", "position"], name="fixed_prompt_position"),
            models.UniqueConstraint(fields=["project", "prompt"], name="fixed_prompt_once"),
        ]

    def __str__(self) -> str:
        return f"{self.position}: {self.prompt_id}"


class FixedAnswer(models.Model):
    """A version's greedy answer to a fixed prompt. Requested once: under the same conditions it
    would be the same again."""

    fixed_prompt = models.ForeignKey(FixedPrompt, on_delete=models.CASCADE, related_name="answers")
    # 'base' or an adapter's name
    version = models.CharField(max_length=80)
    # hash of the system prompt and the token limit
    conditions = models.CharField(max_length=64)
    text = models.TextField()
    finish_reason = models.CharField(max_length=8, choices=Completion.Finish.choices)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["fixed_prompt", "version", "conditions"], name="one_fixed_answer"
            )
        ]

    def __str__(self) -> str:
        return self.text[:60]


class ChangeReport(Claimable):
    """A version next to the one before and the base, and the progress of its answers."""

    class Status(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Asking"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    adapter = models.OneToOneField(
        Adapter, on_delete=models.CASCADE, related_name="change_report", primary_key=True
    )
    # 'base' or an adapter's name: the opponent in the gate
    previous = models.CharField(max_length=80)
    conditions = models.CharField(max_length=64)
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.QUEUED)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    # empty: requested automatically after the gate
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(done__lte=F("total")), name="changes_done_in_total")
        ]

    def __str__(self) -> str:
        return f"{self.adapter_id}: {self.done} of {self.total}"

    @property
    def active(self) -> bool:
        return self.status in (self.Status.QUEUED, self.Status.RUNNING)

    @property
    def versions(self) -> list[str]:
        """Return the versions in the order of the columns: new, previous, base."""
        return list(dict.fromkeys([self.adapter.name, self.previous, BASE_VERSION]))
