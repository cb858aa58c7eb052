"""How fast one person may vote: what the whole hour's votes say, asked where it costs nothing."""

import datetime as dt

from django.core.cache import cache
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Vote, VoteEvent
from feedback_app.web.errors import RateLimited

#: So long a process believes that a person is over the limit before it counts again.
REST_SECONDS = 60


def _key(project: Project, user: User) -> str:
    return f"votes-rest:{project.pk}:{user.pk}"


def rate_limit_note(*, project: Project, by: User, in_hour: int) -> None:
    """The desk has counted the person's hour: remembers it if the next vote is one too many."""
    if project.votes_per_hour and in_hour >= project.votes_per_hour:
        cache.set(_key(project, by), True, REST_SECONDS)


def rate_limit_note_undo(*, project: Project, by: User) -> None:
    """A vote was taken back: what was cast and what was taken back count together, so that nobody
    casts and takes back for ever."""
    if project.votes_per_hour:
        rate_limit_note(project=project, by=by, in_hour=verdicts_in_hour(project=project, by=by))


def verdicts_in_hour(*, project: Project, by: User) -> int:
    """How many verdicts the person gave within the hour, up to the project's limit. A verdict that
    they took back is no vote any more, but an event that says so."""
    since = timezone.now() - dt.timedelta(hours=1)
    # what was cast since then was changed since then, and that is what there is an index on
    cast = Vote.objects.filter(
        project=project, user=by, updated_at__gte=since, created_at__gte=since
    )
    undone = VoteEvent.objects.filter(
        user=by, verdict="", created_at__gte=since, completion__project=project
    )
    both = cast.values("pk").union(undone.values("pk"), all=True)
    return both[: project.votes_per_hour].count()


def rate_limit_check_noted(*, project: Project, by: User, completion: int) -> None:
    """What `rate_limit_check` does, asking the database only where the desk has noted enough."""
    if cache.get(_key(project, by)) is not None:
        rate_limit_check(project=project, by=by, completion=completion)


def rate_limit_check(*, project: Project, by: User, completion: int) -> None:
    """Raises RateLimited for a vote that would be one too many in the hour. Reasons and second
    thoughts on what they have judged already are always welcome."""
    if not project.votes_per_hour:
        return
    if verdicts_in_hour(project=project, by=by) < project.votes_per_hour:
        return
    if not Vote.objects.filter(completion=completion, user=by).exists():
        raise RateLimited(
            f"That is {project.votes_per_hour:,} verdicts within an hour, as many as this project "
            "takes from one person. Time for a break: it goes on by itself."
        )
