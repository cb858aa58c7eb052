"""The list of a project's members: filters, orders and their query parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Page, Paginator
from django.db.models import Case, Count, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Coalesce
from django.http import HttpRequest

from feedback_app.accounts.models import ROLE_ORDER, Membership, Role
from feedback_app.feedback.members.figures import VoteCounts, members_counts
from feedback_app.feedback.models import Project, Vote
from feedback_app.web.errors import UserError
from feedback_app.web.forms import query_choice, query_strict
from feedback_app.web.pagination import CountedPaginator

PAGE_SIZE = 50
STATES = ("", "active", "deactivated")
SORTS = {
    "role": ("rank", "user__name", "user__email", "pk"),
    "name": ("user__name", "user__email", "pk"),
    "joined": ("-created_at", "-pk"),
    "votes": ("-votes", "pk"),
}
PARAMETERS = ("q", "role", "state", "sort", "page")


@dataclass(frozen=True)
class PeopleFilter:
    """The list's state, as in the URL. Empty: no restriction."""

    q: str
    role: str
    state: str
    sort: str

    @classmethod
    def of(cls, request: HttpRequest) -> "PeopleFilter":
        """Read the state from a request. Raise UserError for unknown parameters and values."""
        query_strict(request, PARAMETERS)
        q = request.GET.get("q", "").strip()
        if len(q) > 100 or "\x00" in q:
            raise UserError("q has at most 100 characters.")
        return cls(
            q=q,
            role=query_choice(request, "role", ("", *Role.values)),
            state=query_choice(request, "state", STATES),
            sort=query_choice(request, "sort", tuple(SORTS)),
        )

    def query(self) -> str:
        """Return the state as a query string, without defaults."""
        state = {
            "q": self.q,
            "role": self.role,
            "state": self.state,
            "sort": "" if self.sort == "role" else self.sort,
        }
        return urlencode({name: value for name, value in state.items() if value})

    @property
    def narrowed(self) -> bool:
        return bool(self.q or self.role or self.state)

    def matching(self, project: Project) -> QuerySet[Membership]:
        wanted = Q()
        if self.q:
            wanted &= Q(user__name__icontains=self.q) | Q(user__email__icontains=self.q)
        if self.role:
            wanted &= Q(role=self.role)
        if self.state:
            wanted &= Q(user__is_active=self.state == "active")
        return project.memberships.filter(wanted)

    def page(self, project: Project, number: int | str) -> Page[Any]:
        """Return a page of memberships with their user, `votes` and `voted_at` (the last vote)."""
        counts, members = members_counts(project), self.matching(project)
        rows, order = shown(members, project), SORTS[self.sort]
        if counts is None:
            listed = counted(rows, project).order_by(*order)
            return CountedPaginator(listed, PAGE_SIZE, of=members).get_page(number)
        if self.sort == "votes":
            # members are few in comparison with votes
            ids = sorted(
                members.values_list("pk", "user_id"),
                key=lambda row: (-votes_of(counts, row[1]), row[0]),
            )
            page: Page[Any] = Paginator([pk for pk, _ in ids], PAGE_SIZE).get_page(number)
            known = rows.in_bulk(list(page))
            page.object_list = [known[pk] for pk in page]
        else:
            page = CountedPaginator(rows.order_by(*order), PAGE_SIZE, of=members).get_page(number)
        for member in page:
            # unknown until a worker has counted them
            member.votes = votes_of(counts, member.user_id) if counts else None
        return page


def votes_of(counts: Mapping[int, VoteCounts], user: int) -> int:
    return counts[user].votes if user in counts else 0


def shown(rows: QuerySet[Membership], project: Project) -> QuerySet[Membership]:
    cast = Vote.objects.filter(project=project, user=OuterRef("user"))
    ranks = [When(role=role, then=Value(rank)) for rank, role in enumerate(ROLE_ORDER)]
    return rows.select_related("user").annotate(
        rank=Case(*ranks, default=Value(len(ranks))),
        voted_at=Subquery(cast.order_by("-updated_at").values("updated_at")[:1]),
    )


def counted(rows: QuerySet[Membership], project: Project) -> QuerySet[Membership]:
    """Add the number of votes, which is read row by row: for a small project."""
    cast = Vote.objects.filter(project=project, user=OuterRef("user"))
    votes = cast.order_by().values("user").annotate(n=Count("pk")).values("n")
    return rows.annotate(votes=Coalesce(Subquery(votes), 0))
