"""The flags page: items that people flagged, and restoring them."""

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.access import project_view
from feedback_app.feedback.flags.selectors import flagged, restored
from feedback_app.feedback.flags.services import (
    FLAGS_PER_HOUR,
    flag_again,
    flag_restore,
    flags_restore,
)
from feedback_app.feedback.models import Completion, Project
from feedback_app.web.forms import NoFields, query_choice, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import ListedPaginator
from feedback_app.web.responses import action_view, page

PAGE_SIZE = 10
LISTS = {"flagged": flagged, "restored": restored}


@project_view(Role.ADMIN)
@page
def flags(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show one of the two lists."""
    query_strict(request, ("show", "page"))
    show = query_choice(request, "show", tuple(LISTS))
    context = {
        "project": project,
        "show": show,
        "per_hour": FLAGS_PER_HOUR,
        "page": ListedPaginator(LISTS[show](project), PAGE_SIZE).get_page(query_page(request)),
        "query": f"show={show}",
    }
    return render(request, "feedback/flags.html", context)


@project_view(Role.ADMIN)
@action_view
def flag_restore_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Put an item back into the queue."""
    if flag_restore(completion=flag_of(request, project, pk), by=request.user):
        messages.success(request, "Restored. You can undo it under 'Restored'.")
    else:
        messages.info(request, "There was nothing to restore.")
    return redirect("flags", project.slug)


@project_view(Role.ADMIN)
@action_view
def flag_again_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Undo a restoration."""
    undone = flag_again(completion=flag_of(request, project, pk), by=request.user)
    messages.info(request, "Flagged again." if undone else "There was nothing to undo.")
    return redirect(reverse("flags", args=[project.slug]) + "?show=restored")


@project_view(Role.ADMIN)
@action_view
def flags_restore_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Put every item that a person has flagged back into the queue."""
    validated(NoFields(request.POST))
    person = get_object_or_404(
        User.objects.filter(skips__completion__project=project).distinct(), pk=pk
    )
    count = flags_restore(project=project, of=person, by=request.user)
    messages.success(request, f"{count} item{'s are' if count != 1 else ' is'} back in the queue.")
    return redirect("flags", project.slug)


def flag_of(request: HtmxHttpRequest, project: Project, pk: int) -> Completion:
    """Return the completion of a form without fields. Raise Http404 or UserError."""
    validated(NoFields(request.POST))
    completion = get_object_or_404(project.completions.only("pk", "project"), pk=pk)
    completion.project = project
    return completion
