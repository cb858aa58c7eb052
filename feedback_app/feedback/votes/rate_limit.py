"""The hourly limit on one person's votes.

It counts rows of two tables in a sliding hour, unlike the counters of db/rate_limit.py. The count
is made when the annotation page has it anyway.
"""

import datetime as dt

from django.core.cache import cache
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Vote, VoteEvent
from feedback_app.web.errors import RateLimited

#: How long a person is known to be near the limit without counting again.
RETRY_SECONDS = 60


def _key(project: Project, user: User) -> str:
    return f"rate-limit:{project.pk}:{user.pk}"


def rate_limit_note(*, project: Project, by: User, in_hour: int) -> None:
    """Cache that the next vote of this person must be checked, if it may exceed the limit."""
    if project.votes_per_hour and in_hour >= project.votes_per_hour:
        cache.set(_key(project, by), True, RETRY_SECONDS)


def rate_limit_note_undo(*, project: Project, by: User) -> None:
    """Do the same after an undo: undone votes count, so that nobody votes and undoes forever."""
    if project.votes_per_hour:
        rate_limit_note(project=project, by=by, in_hour=verdicts_in_hour(project=project, by=by))


def verdicts_in_hour(*, project: Project, by: User) -> int:
    """Return the person's verdicts of the last hour, bounded by the project's limit.

    An undone verdict has no vote any more, but an event.
    """
    since = timezone.now() - dt.timedelta(hours=1)
    # created_at >= x implies updated_at >= x, which is indexed
    cast = Vote.objects.filter(
        project=project, user=by, updated_at__gte=since, created_at__gte=since
    )
    undone = VoteEvent.objects.filter(
        user=by, verdict="", created_at__gte=since, completion__project=project
    )
    both = cast.values("pk").union(undone.values("pk"), all=True)
    return both[: project.votes_per_hour].count()


def rate_limit_check_noted(*, project: Project, by: User, completion: int) -> None:
    """Check the limit only if `rate_limit_note` has noted that it may be exceeded."""
    if cache.get(_key(project, by)) is not None:
        rate_limit_check(project=project, by=by, completion=completion)


def rate_limit_check(*, project: Project, by: User, completion: int) -> None:
    """Raise RateLimited for a new vote beyond the hourly limit.

    Changes to earlier votes are always allowed.
    """
    if not project.votes_per_hour:
        return
    if verdicts_in_hour(project=project, by=by) < project.votes_per_hour:
        return
    if not Vote.objects.filter(completion=completion, user=by).exists():
        raise RateLimited(
            f"You have reached this project's limit of {project.votes_per_hour:,} votes per hour. "
            "Take a break and go on later."
        )
