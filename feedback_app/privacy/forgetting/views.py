"""The state of erasures: for admins, and by a signed link for the people who asked."""

from itertools import groupby
from operator import attrgetter

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Completion, Project
from feedback_app.privacy.example_erasure import example_erase
from feedback_app.privacy.forgetting.links import erasure_link, erasures_of
from feedback_app.training.forgetting.selectors import forgettings
from feedback_app.training.models import Erasure
from feedback_app.web.forms import NoFields, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import CountedPaginator
from feedback_app.web.responses import action_view, page

PAGE_SIZE = 25


@project_view(Role.ADMIN)
@page
def erasures(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the project's erasures with their states, newest first."""
    query_strict(request, ("page",))
    rows = (
        Erasure.objects.filter(project=project).select_related("by").order_by("-created_at", "-pk")
    )
    shown = CountedPaginator(rows, PAGE_SIZE).get_page(query_page(request))
    context = {
        "project": project,
        "page": shown,
        "rows": [
            (found, request.build_absolute_uri(erasure_link([found.erasure])))
            for found in forgettings(project, shown)
        ],
    }
    return render(request, "privacy/erasures.html", context)


@login_not_required
@never_cache
@require_http_methods(["GET", "HEAD"])
def erasure_status(request: HttpRequest, secret: str) -> HttpResponse:
    """Show the erasures of a signed link, with neither names nor texts."""
    found = erasures_of(secret)
    if not found:
        raise Http404("No such erasure.")
    states = [
        (project, forgettings(project, rows))
        for project, rows in groupby(found, key=attrgetter("project"))
    ]
    response = render(request, "privacy/erasure_status.html", {"states": states})
    response["Referrer-Policy"] = "no-referrer"
    return response


@project_view(Role.ADMIN, archived=True)
@action_view
def completion_erase(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Erase an answer with its votes and its example."""
    validated(NoFields(request.POST))
    answers = Completion.objects.select_related("prompt", "project", "example")
    completion = get_object_or_404(answers, project=project, pk=pk)
    erasure = example_erase(completion=completion, by=request.user)
    text = "The answer is erased, with its votes and its example."
    if erasure.due_at is not None:
        text += f" Versions that had learned from it: {', '.join(erasure.adapter_names)}."
    messages.success(request, text)
    return redirect("erasures", project.slug)
