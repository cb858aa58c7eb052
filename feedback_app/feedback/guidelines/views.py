"""The history of a project's guidelines."""

from django.http import HttpResponseBase
from django.shortcuts import render

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.guidelines.services import guidelines_changes
from feedback_app.feedback.models import Project
from feedback_app.web.forms import query_page, query_strict
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import CountedPaginator
from feedback_app.web.responses import page

PAGE_SIZE = 10


@project_view(Role.ANNOTATOR)
@page
def guidelines(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show every version, newest first, with its changes."""
    query_strict(request, ("page",))
    rows = project.guidelines_versions.select_related("by").order_by("-number")
    found = CountedPaginator(rows, PAGE_SIZE).get_page(query_page(request))
    context = {
        "project": project,
        "page": found,
        "changes": guidelines_changes(list(found), project=project),
    }
    return render(request, "feedback/guidelines.html", context)
