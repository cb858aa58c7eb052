"""The list of a project's members: filters, orders and their query parameters."""

from dataclasses import dataclass
from urllib.parse import urlencode

from django.db.models import Case, Count, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Coalesce
from django.http import HttpRequest

from feedback_app.accounts.models import ROLE_ORDER, Membership, Role
from feedback_app.feedback.models import Project, Vote
from feedback_app.web.errors import UserError
from feedback_app.web.forms import query_choice, query_strict

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

    def select(self, project: Project) -> QuerySet[Membership]:
        """Return memberships with their user, `votes` and `voted_at` (the last vote), in order."""
        wanted = Q()
        if self.q:
            wanted &= Q(user__name__icontains=self.q) | Q(user__email__icontains=self.q)
        if self.role:
            wanted &= Q(role=self.role)
        if self.state:
            wanted &= Q(user__is_active=self.state == "active")
        cast = Vote.objects.filter(project=project, user=OuterRef("user"))
        counted = cast.order_by().values("user").annotate(n=Count("pk")).values("n")
        ranks = [When(role=role, then=Value(rank)) for rank, role in enumerate(ROLE_ORDER)]
        return (
            project.memberships.filter(wanted)
            .select_related("user")
            .annotate(
                rank=Case(*ranks, default=Value(len(ranks))),
                votes=Coalesce(Subquery(counted), 0),
                voted_at=Subquery(cast.order_by("-updated_at").values("updated_at")[:1]),
            )
            .order_by(*SORTS[self.sort])
        )
