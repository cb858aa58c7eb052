"""Access to a project's pages through memberships; everybody else gets 404."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, cast

from django.contrib.auth.middleware import get_user
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, OuterRef
from django.http import Http404
from django.http.response import HttpResponseBase

from feedback_app.accounts.models import Membership, Role, User, roles_from
from feedback_app.feedback.models import Pause, Project
from feedback_app.feedback.read_only import forms_disable
from feedback_app.web.errors import UserError
from feedback_app.web.htmx import HtmxHttpRequest

#: What an archived project answers to everything that would change it.
ARCHIVED = "This project is archived: nothing in it can be changed until an owner restores it."
SAFE = ("GET", "HEAD", "OPTIONS")
#: Owners that the pages of an archived project name.
OWNERS_NAMED = 3

P = ParamSpec("P")
View = Callable[Concatenate[HtmxHttpRequest, Project, P], HttpResponseBase]
RoutedView = Callable[..., HttpResponseBase]

PAUSED = Pause.objects.filter(project=OuterRef("project"), user=OuterRef("user"), lifted_at=None)
MEMBERSHIPS = Membership.objects.select_related("project").annotate(paused=Exists(PAUSED))


def project_view(least: Role, *, archived: bool = False) -> Callable[[View[P]], RoutedView]:
    """Pass the view its Project instead of the URL's slug.

    People without a membership get 404, as if the project did not exist; members whose role is too
    low get 403. `request.membership` holds the role, `request.paused` whether the person is paused.

    An archived project refuses all methods but SAFE, unless `archived` says that this view also
    works there: it takes access or data away, or restores the project. Its pages show the forms of
    views that refuse it disabled.
    """

    def decorate(view: View[P]) -> RoutedView:
        @wraps(view)
        def routed(
            request: HtmxHttpRequest, slug: str, *args: P.args, **kwargs: P.kwargs
        ) -> HttpResponseBase:
            # the user itself: each attribute access through Django's lazy object costs more
            request.user = cast("User", get_user(request))
            membership = MEMBERSHIPS.filter(user=request.user.pk, project__slug=slug).first()
            if membership is None:
                raise Http404("No such project.")
            if membership.role not in roles_from(least):
                raise PermissionDenied(
                    f"This page is for the role {least.label.lower()} and above. "
                    "Ask an owner of the project to change yours."
                )
            if membership.project.archived_at and not archived and request.method not in SAFE:
                raise PermissionDenied(ARCHIVED)
            request.membership = membership
            request.paused = membership.paused
            request.owners = owners_of(membership) if membership.project.archived_at else []
            response = view(request, membership.project, *args, **kwargs)
            if membership.project.archived_at:
                forms_disable(response, path=request.path, why=ARCHIVED)
            return response

        routed.least = least  # type: ignore[attr-defined]
        routed.archived = archived  # type: ignore[attr-defined]
        return routed

    return decorate


def owners_of(membership: Membership) -> list[User]:
    """Return the owners of an admin's project: owners need no names, and others do not see who is a
    member."""
    if membership.role != Role.ADMIN:
        return []
    rows = User.objects.filter(
        memberships__project=membership.project, memberships__role=Role.OWNER
    )
    return list(rows.order_by("pk")[:OWNERS_NAMED])


def unpaused(request: HtmxHttpRequest) -> None:
    """Raise UserError for a paused person. Call it in every view that changes votes."""
    if request.paused:
        raise UserError("You are paused: an admin of this project must let you continue.")
