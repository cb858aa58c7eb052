"""The reliability of a project's people, counted by a worker every hour.

It is estimated from answers that two or more people judged, from decided ones, and from first
verdicts on gold items. Imported labels are nobody's verdict. Everything is read from the newest
rows only, so that the work does not grow with the table.
"""

import datetime as dt
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from feedback_app.feedback.models import Figures, GoldAnswer, Project, Source, Verdict, Vote
from feedback_app.feedback.reliability.dawid_skene import Verdicts, accuracies

NAME = "reliability"
#: The newest votes, and the newest gold answers, that are read.
WINDOW = 100_000
#: People with fewer votes than the first so many are left out.
PEOPLE = 5_000
RENEWED = dt.timedelta(hours=1)
#: A known verdict as the estimate takes it.
KNOWN: dict[str, float] = {Verdict.UP.value: 1.0, Verdict.DOWN.value: 0.0}


@dataclass(frozen=True)
class Reliability:
    """A person's balanced accuracy with its 95 % interval, from so many verdicts."""

    value: float
    low: float
    high: float
    verdicts: int

    @property
    def informative(self) -> float:
        """How much a vote of theirs says, in [0, 1]: 0 from chance downwards."""
        return max(0.0, 2 * self.value - 1)


def reliability_renew() -> None:
    """Have a worker count reliability again for each project that was last counted an hour ago."""
    known = Figures.objects.filter(name=NAME, project=OuterRef("pk"))
    new = Project.objects.filter(~Exists(known), archived_at=None)
    Figures.objects.bulk_create(
        (Figures(project=project, name=NAME) for project in new.only("pk")), ignore_conflicts=True
    )
    Figures.objects.filter(
        name=NAME,
        status=Figures.Status.DONE,
        counted_at__lt=timezone.now() - RENEWED,
        project__archived_at=None,
    ).update(status=Figures.Status.QUEUED)


def reliability_of(project: Project) -> dict[int, Reliability]:
    """Return the reliability that was last counted by user id; empty before that."""
    rows = Figures.objects.filter(project=project, name=NAME)
    value = rows.values_list("value", flat=True).first() or {}
    return {int(user): Reliability(*figures) for user, figures in value.items()}


def weights_of(project: Project) -> dict[int, float]:
    """Return the weight of each person's votes in (0, 1], 1 for the most reliable.

    Empty if the project does not weigh examples by reliability or nothing was counted yet. The key
    0 has the weight of people about whom nothing is known.
    """
    if not project.weigh_by_reliability:
        return {}
    known = reliability_of(project)
    if not known:
        return {}
    unknown = Reliability(0.8, 0, 1, 0).informative  # the prior's mean
    most = max(unknown, *(person.informative for person in known.values()))
    found = {user: person.informative / most for user, person in known.items()}
    return {0: unknown / most} | found


def reliability_count(project: Project) -> dict[int, list[float]]:
    """Return [accuracy, low, high, verdicts] of each person, by user id."""
    import numpy as np

    rows = list(verdicts_read(project))
    if not rows:
        return {}
    people = [user for user, _ in Counter(user for user, *_ in rows).most_common(PEOPLE)]
    places = {user: place for place, user in enumerate(people)}
    rows = [row for row in rows if row[0] in places]
    items: dict[tuple[str, int], int] = {}
    truths: list[float] = []
    for _, item, _, truth in rows:
        if item not in items:
            items[item] = len(items)
            truths.append(KNOWN.get(truth, math.nan))
    found = accuracies(
        Verdicts(
            item=np.array([items[item] for _, item, *_ in rows]),
            person=np.array([places[user] for user, *_ in rows]),
            up=np.array([verdict == Verdict.UP for _, _, verdict, _ in rows], dtype=float),
            truth=np.array(truths),
        ),
        people=len(people),
    )
    counts = Counter(user for user, *_ in rows)
    return {
        user: [each.value, each.low, each.high, counts[user]]
        for user, each in zip(people, found, strict=True)
    }


def verdicts_read(project: Project) -> Iterator[tuple[int, tuple[str, int], str, str]]:
    """Yield (user, item, verdict, known verdict or ''): gold answers, then votes elsewhere.

    Votes that were set aside are read as well: they say how reliable somebody is.
    """
    gold = GoldAnswer.objects.filter(project=project).order_by("-pk")
    for user, item, verdict, truth in gold.values_list("user", "item", "verdict", "item__verdict")[
        :WINDOW
    ]:
        yield user, ("gold", item), verdict, truth
    votes: Any = (
        Vote.objects.filter(
            Q(completion__vote_count__gt=1) | ~Q(completion__decided=""),
            project=project,
            completion__gold=False,
        )
        .exclude(source=Source.IMPORT)
        .order_by("-pk")
    )
    for user, item, verdict, truth in votes.values_list(
        "user", "completion", "verdict", "completion__decided"
    )[:WINDOW]:
        yield user, ("answer", item), verdict, truth
