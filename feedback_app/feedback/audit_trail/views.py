"""The page of a project's audit trail, and its download."""

from django.http import HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import Role, User
from feedback_app.db.bounded_count import COUNTED
from feedback_app.feedback.access import project_view
from feedback_app.feedback.audit_trail.labels import LABELS, label_of
from feedback_app.feedback.audit_trail.listing import WINDOW, AuditFilter, csv_rows, person_of
from feedback_app.feedback.models import Project
from feedback_app.web.forms import query_page
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import CountedPaginator
from feedback_app.web.responses import page

PAGE_SIZE = 50
#: Members that the filter offers.
PEOPLE_OFFERED = 200


@project_view(Role.ADMIN)
@page
def audit_trail(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show who did what, newest first."""
    chosen = AuditFilter.of(request)
    found = CountedPaginator(chosen.select(project), PAGE_SIZE).get_page(query_page(request))
    people = User.objects.filter(memberships__project=project).order_by("name", "pk")
    context = {
        "project": project,
        "chosen": chosen,
        "page": found,
        "rows": [(event, label_of(event.action), person_of(event)) for event in found],
        "query": chosen.query(),
        "actions": sorted(LABELS.items(), key=lambda item: item[1]),
        "people": [(str(user.pk), str(user)) for user in people[:PEOPLE_OFFERED]],
        "window": WINDOW,
    }
    return render(request, "feedback/audit_trail.html", context)


@project_view(Role.ADMIN)
@page
def audit_export(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Return the events of the filter as CSV, the newest COUNTED at most."""
    chosen = AuditFilter.of(request)
    if request.method == "GET":
        audit(project=project, actor=request.user, action="audit.export", target=chosen.query())
    events = chosen.select(project)[:COUNTED]
    return StreamingHttpResponse(
        csv_rows(events.iterator(chunk_size=1_000)),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{project.slug}-audit.csv"'},
    )
