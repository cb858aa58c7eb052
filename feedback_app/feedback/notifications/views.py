"""A person's notifications, and which ones a member gets from a project."""

import datetime as dt

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from feedback_app.accounts.models import Role, roles_from
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.feedback.models.notifications import Notification, NotificationChoice
from feedback_app.feedback.notifications.forms import ChoiceForm
from feedback_app.feedback.notifications.services import notifications_choose, notifications_seen
from feedback_app.web.errors import UserError
from feedback_app.web.forms import query_page, query_strict
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import CountedPaginator
from feedback_app.web.responses import action_view, bad_request, page

PAGE_SIZE = 30
#: Roles that get notifications.
NOTIFIED = roles_from(Role.ADMIN)
#: Projects whose choices the list links to.
PROJECTS_OFFERED = 50
CHOICE = "feedback/notification_choice.html"


@require_http_methods(["GET", "HEAD"])
def notifications(request: HtmxHttpRequest) -> HttpResponseBase:
    """List a person's notifications, newest first, and mark them as seen."""
    try:
        query_strict(request, ("page",))
        number = query_page(request)
    except UserError as error:
        return bad_request(request, str(error))
    user = request.user
    projects = Project.objects.filter(
        pk__in=user.memberships.filter(role__in=NOTIFIED).values("project")
    )
    # only of projects in which the person still has such a role
    rows = user.notifications.filter(listed=True, project__in=projects).select_related("project")
    found = CountedPaginator(rows.order_by("-pk"), PAGE_SIZE).get_page(number)
    context = {
        "page": found,
        "rows": [(row, is_new(row, user.notifications_seen_at)) for row in found],
        "projects": projects.filter(archived_at=None).order_by("name", "pk")[:PROJECTS_OFFERED],
    }
    if request.method == "GET" and user.has_news:
        notifications_seen(user=user)
    return render(request, "feedback/notifications.html", context)


def is_new(row: Notification, seen_at: dt.datetime | None) -> bool:
    """Return whether a notification came after the list was last opened."""
    return seen_at is None or row.created_at > seen_at


@project_view(Role.ADMIN)
def notification_choice(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show and set which notifications a member gets from a project."""
    if request.method == "POST":
        return notification_choose(request, project)
    return notification_choice_show(request, project)


@page
def notification_choice_show(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    query_strict(request, ())
    choice = NotificationChoice.objects.filter(project=project, user=request.user).first()
    return render(request, CHOICE, {"project": project, "form": ChoiceForm.of(choice)})


@action_view
def notification_choose(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    form = ChoiceForm(request.POST)
    if not form.is_valid():
        return render(request, CHOICE, {"project": project, "form": form}, status=400)
    notifications_choose(project=project, user=request.user, **form.cleaned_data)
    messages.success(request, "Saved.")
    return redirect("notification-choice", slug=project.slug)
