"""What a project asks of those who vote: how fast, and how much of a snapshot one may give."""

from django.db import models
from django.db.models import Q


class ProjectRules(models.Model):
    """The fields of a Project that keep its votes honest."""

    # 0: no limit
    votes_per_hour = models.PositiveIntegerField(default=3_000)
    # of a snapshot's votes, the most that one person may give; 100: all of them
    person_share = models.PositiveSmallIntegerField(default=50)
    # so many are always taken, whatever share they are
    person_floor = models.PositiveIntegerField(default=500)

    class Meta:
        abstract = True


#: They belong to the project's table, so its Meta lists them.
RULE_CONSTRAINTS: list[models.BaseConstraint] = [
    models.CheckConstraint(
        condition=Q(person_share__gte=1) & Q(person_share__lte=100), name="person_share_1_to_100"
    ),
]
