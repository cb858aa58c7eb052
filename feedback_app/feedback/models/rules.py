"""A project's voting rules."""

from django.db import models
from django.db.models import Q


class GoldFeedback(models.TextChoices):
    """When a person sees their result on a gold item."""

    NEVER = "never", "Never"
    AT_ONCE = "at_once", "Immediately"
    AFTER = "after", "When the queue is empty"


class ProjectRules(models.Model):
    """Fields of a Project: rate limit, snapshot cap and gold settings."""

    # 0: no limit
    votes_per_hour = models.PositiveIntegerField(default=3_000)
    # the largest share of a snapshot's votes from one person, in percent; 100: no cap
    person_share = models.PositiveSmallIntegerField(default=50)
    # this many votes of a person are always included
    person_floor = models.PositiveIntegerField(default=500)
    # the weight of a corrected answer's example, in percent of an answer's own
    edited_weight = models.PositiveSmallIntegerField(default=100, db_default=100)
    # whether an example's votes count by the reliability of the people who gave them
    weigh_by_reliability = models.BooleanField(default=False, db_default=False)
    # whether what readers do next is stored, and counts once it agrees with votes (follow_ups)
    follow_ups = models.BooleanField(default=False, db_default=False)
    # on average one gold item in this many items; 0: none
    gold_every = models.PositiveSmallIntegerField(default=0)
    gold_feedback = models.CharField(
        max_length=7, choices=GoldFeedback.choices, default=GoldFeedback.NEVER
    )
    # people with a lower accuracy, in percent, on their last `gold_window` items are paused
    gold_least = models.PositiveSmallIntegerField(default=70)
    gold_window = models.PositiveSmallIntegerField(default=10)

    class Meta:
        abstract = True


#: For Project.Meta, as an abstract model cannot add them.
RULE_CONSTRAINTS: list[models.BaseConstraint] = [
    models.CheckConstraint(
        condition=Q(person_share__gte=1) & Q(person_share__lte=100), name="person_share_1_to_100"
    ),
    models.CheckConstraint(
        condition=Q(edited_weight__gte=1) & Q(edited_weight__lte=100), name="edited_weight_1_to_100"
    ),
    models.CheckConstraint(
        condition=Q(gold_least__lte=100) & Q(gold_window__gte=1), name="gold_least_of_window"
    ),
]
