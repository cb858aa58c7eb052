"""The votes of each member, as figures that a worker counts in a large project."""

from collections import defaultdict
from dataclasses import dataclass

from django.db.models import Count, Exists, OuterRef

from feedback_app.accounts.models import Membership, User
from feedback_app.feedback.figures.services import figures_stored
from feedback_app.feedback.models import Example, Project, Source, Verdict, VoteQuerySet

NAME = "members"


@dataclass(frozen=True)
class VoteCounts:
    """One person's votes in a project; `examples` are those that they judged, `imported` labels of
    files that they imported."""

    ups: int = 0
    downs: int = 0
    imported: int = 0
    examples: int = 0

    @property
    def votes(self) -> int:
        return self.ups + self.downs + self.imported


def members_counts(project: Project) -> dict[int, VoteCounts] | None:
    """Return the counts of a large project's members, up to a minute old.

    None for a project that is small enough to be counted by the page, person by person. Empty until
    a worker has counted.
    """
    found = figures_stored(project=project, name=NAME, rows=project.votes.all())
    if found is None:
        return None
    return {int(user): VoteCounts(*counts) for user, counts in (found.value or {}).items()}


def member_counts(*, project: Project, user: User) -> VoteCounts | None:
    """Return one person's counts; None until a worker has counted the votes of a large project."""
    known = members_counts(project)
    if known is None:
        return votes_count(project.votes.filter(user=user)).get(user.pk, VoteCounts())
    return known.get(user.pk, VoteCounts()) if known else None


def members_count(project: Project) -> dict[int, list[int]]:
    """Count the votes of everyone who can see them: members, and those who were one."""
    accounts = project.votes.filter(user__in=User.objects.filter(is_active=True))
    members = Membership.objects.filter(project=project, user=OuterRef("user"))
    votes = accounts | project.votes.filter(Exists(members))
    return {
        user: [each.ups, each.downs, each.imported, each.examples]
        for user, each in votes_count(votes).items()
    }


def votes_count(votes: VoteQuerySet) -> dict[int, VoteCounts]:
    found: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    rows = votes.order_by().values_list("user", "source", "verdict").annotate(n=Count("pk"))
    for user, source, verdict, n in rows:
        imported = source == Source.IMPORT
        found[user]["imported" if imported else f"{Verdict(verdict)}s"] += n
    judged = votes.exclude(source=Source.IMPORT).filter(
        Exists(Example.objects.filter(pk=OuterRef("completion")))
    )
    for user, n in judged.order_by().values_list("user").annotate(n=Count("pk")):
        found[user]["examples"] = n
    return {user: VoteCounts(**counts) for user, counts in found.items()}
