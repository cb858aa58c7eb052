"""The disagreements page: completions that need a final verdict, with their votes."""

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.adjudication.forms import VerdictForm
from feedback_app.feedback.adjudication.selectors import (
    asked,
    asked_rows,
    contested,
    resolved,
    waiting,
)
from feedback_app.feedback.adjudication.services import (
    adjudication_decide,
    adjudication_undo,
    adjudication_withdraw,
)
from feedback_app.feedback.models import Completion, Project, Verdict
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_choice, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import ListedPaginator
from feedback_app.web.responses import action_view, error_response, page

PAGE_SIZE = 10
LISTS = {"contested": contested, "asked": asked, "resolved": resolved}


@project_view(Role.ADMIN)
@page
def resolve(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show one of the three lists."""
    query_strict(request, ("show", "page"))
    count = waiting(project)
    # by default the first list that is not empty
    first = "asked" if count.asked and not count.contested else "contested"
    show = query_choice(request, "show", (first, *(name for name in LISTS if name != first)))
    context = {
        "project": project,
        "show": show,
        "waiting": count,
        "page": ListedPaginator(
            LISTS[show](project), PAGE_SIZE, of=asked_rows(project) if show == "asked" else None
        ).get_page(query_page(request)),
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
    """Record a final verdict."""
    completion = completion_of(project, pk)
    values = validated(VerdictForm(request.POST))
    back = back_to(project, values["show"] or "contested")
    verdict = Verdict(values["verdict"])
    try:
        adjudication_decide(
            completion=completion, verdict=verdict, why=values["why"], by=request.user
        )
    except UserError as error:
        return error_response(request, str(error), back=back)
    messages.success(request, f"Decided: {verdict.label.lower()}. You can undo it under 'Decided'.")
    return redirect(back)


@project_view(Role.ADMIN)
@action_view
def resolve_undo(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Undo a final verdict."""
    completion = completion_of(project, pk)
    validated(NoFields(request.POST))
    undone = adjudication_undo(completion=completion, by=request.user)
    text = "Undone. Its votes decide again." if undone else "There was nothing to undo."
    messages.info(request, text)
    return redirect(back_to(project, "resolved"))


@project_view(Role.ADMIN)
@action_view
def resolve_unask(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Withdraw a request for a final verdict."""
    completion = completion_of(project, pk)
    validated(NoFields(request.POST))
    if adjudication_withdraw(completion=completion, by=request.user):
        messages.info(request, "Removed from the list.")
    return redirect(back_to(project, "asked"))
