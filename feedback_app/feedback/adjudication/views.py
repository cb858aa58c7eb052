"""The resolver's desk: disagreements and doubtful labels, with all that people said of them."""

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.adjudication.forms import VerdictForm
from feedback_app.feedback.adjudication.selectors import asked, contested, resolved, waiting
from feedback_app.feedback.adjudication.services import (
    resolution_decide,
    resolution_unask,
    resolution_undo,
)
from feedback_app.feedback.models import Completion, Project, Verdict
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_choice, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, error_response, page

PAGE_SIZE = 10
LISTS = {"contested": contested, "asked": asked, "resolved": resolved}


@project_view(Role.ADMIN)
@page
def resolve(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """One of the three lists."""
    query_strict(request, ("show", "page"))
    count = waiting(project)
    # what waits is shown, unless the address says otherwise
    first = "asked" if count.asked and not count.contested else "contested"
    show = query_choice(request, "show", (first, *(name for name in LISTS if name != first)))
    context = {
        "project": project,
        "show": show,
        "waiting": count,
        "page": Paginator(LISTS[show](project), PAGE_SIZE).get_page(query_page(request)),
        "query": f"show={show}",
    }
    return render(request, "feedback/resolve.html", context)


def back_to(project: Project, show: str) -> str:
    return reverse("resolve", args=[project.slug]) + f"?show={show}"


def completion_of(project: Project, pk: int) -> Completion:
    return get_object_or_404(project.completions.only("pk"), pk=pk)


@project_view(Role.ADMIN)
@action_view
def resolve_decide(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """The last word."""
    completion = completion_of(project, pk)
    values = validated(VerdictForm(request.POST))
    back = back_to(project, values["show"] or "contested")
    verdict = Verdict(values["verdict"])
    try:
        resolution_decide(
            completion=completion, verdict=verdict, why=values["why"], by=request.user
        )
    except UserError as error:
        return error_response(request, str(error), back=back)
    messages.success(request, f"It is {verdict.label.lower()} now. 'Decided' can undo it.")
    return redirect(back)


@project_view(Role.ADMIN)
@action_view
def resolve_undo(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """The votes decide again."""
    completion = completion_of(project, pk)
    validated(NoFields(request.POST))
    undone = resolution_undo(completion=completion, by=request.user)
    messages.info(request, "Taken back: its votes decide." if undone else "It was not decided.")
    return redirect(back_to(project, "resolved"))


@project_view(Role.ADMIN)
@action_view
def resolve_unask(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Nobody need look after all."""
    completion = completion_of(project, pk)
    validated(NoFields(request.POST))
    if resolution_unask(completion=completion, by=request.user):
        messages.info(request, "Left as it is.")
    return redirect(back_to(project, "asked"))
