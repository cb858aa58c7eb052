"""The quality page: agreement, and how each person votes."""

from django.core.paginator import Paginator
from django.http import HttpResponseBase
from django.shortcuts import render

from feedback_app.accounts.models import Role
from feedback_app.db.bounded_count import counted
from feedback_app.feedback.access import project_view
from feedback_app.feedback.adjudication.selectors import waiting
from feedback_app.feedback.follow_ups.agreement import follow_up_agreement
from feedback_app.feedback.gold.selectors import pauses_open
from feedback_app.feedback.models import Project
from feedback_app.feedback.quality.selectors import WINDOW, quality
from feedback_app.feedback.quality.tables import QualityView
from feedback_app.web.forms import query_page
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import page

PAGE_SIZE = 25


@project_view(Role.ADMIN)
@page
def quality_page(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the figures and the chosen table."""
    chosen = QualityView.of(request)
    found = quality(project)
    context = {
        "project": project,
        "quality": found,
        "window": WINDOW,
        "chosen": chosen,
        "headers": chosen.headers(),
        "page": Paginator(chosen.rows(found), PAGE_SIZE).get_page(query_page(request)),
        "query": chosen.query(),
        "waiting": waiting(project),
        "pauses": counted(pauses_open(project)),
        "follow_ups": follow_up_agreement(project),
        "flagged": counted(project.completions.filter(flagged=True)),
    }
    return render(request, "feedback/quality.html", context)
