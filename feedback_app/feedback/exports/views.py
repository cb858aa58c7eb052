"""Downloads of a project's examples."""

from django.http import HttpResponseBase

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.exports.downloads import download_of, export_target
from feedback_app.feedback.exports.rows import FORMATS, project_rows
from feedback_app.feedback.models import Project
from feedback_app.web.forms import query_choice, query_strict
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import page


@project_view(Role.ADMIN)
@page
def examples_export(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Stream the examples as a file, with their votes if requested, and record it in the audit
    trail."""
    query_strict(request, ("format", "votes"))
    chosen = query_choice(request, "format", FORMATS)
    votes = query_choice(request, "votes", ("false", "true")) == "true"
    if request.method == "GET":
        audit(
            project=project,
            actor=request.user,
            action="examples.export",
            target=export_target(chosen, votes=votes),
        )
    return download_of(
        project_rows(project, votes=votes),
        name=f"{project.slug}-examples",
        as_format=chosen,
        votes=votes,
    )
