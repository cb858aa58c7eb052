"""What a project asks of those who vote."""

from django.db import models
from django.db.models import Q


class GoldFeedback(models.TextChoices):
    """When a person learns how they judged a gold item."""

    NEVER = "never", "Never"
    AT_ONCE = "at_once", "At once"
    AFTER = "after", "When the queue is empty"


class ProjectRules(models.Model):
    """The fields of a Project that keep its votes honest."""

    # 0: no limit
    votes_per_hour = models.PositiveIntegerField(default=3_000)
    # of a snapshot's votes, the most that one person may give; 100: all of them
    person_share = models.PositiveSmallIntegerField(default=50)
    # so many are always taken, whatever share they are
    person_floor = models.PositiveIntegerField(default=500)
    # one in so many items is gold, by chance; 0: none
    gold_every = models.PositiveSmallIntegerField(default=0)
    gold_feedback = models.CharField(
        max_length=7, choices=GoldFeedback.choices, default=GoldFeedback.NEVER
    )
    # whoever is right on fewer of their last `gold_window` is paused
    gold_least = models.PositiveSmallIntegerField(default=70)
    gold_window = models.PositiveSmallIntegerField(default=10)

    class Meta:
        abstract = True


#: They belong to the project's table, so its Meta lists them.
RULE_CONSTRAINTS: list[models.BaseConstraint] = [
    models.CheckConstraint(
        condition=Q(person_share__gte=1) & Q(person_share__lte=100), name="person_share_1_to_100"
    ),
    models.CheckConstraint(
        condition=Q(gold_least__lte=100) & Q(gold_window__gte=1), name="gold_least_of_window"
    ),
]
