"""Gold items, and the people who are paused because of them."""

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.gold.forms import GoldForm, LiftForm
from feedback_app.feedback.gold.pauses import pause_lift, votes_restore
from feedback_app.feedback.gold.selectors import gold_items, pauses_open, pauses_unrestored
from feedback_app.feedback.gold.services import gold_mark, gold_unmark
from feedback_app.feedback.models import Project, Verdict
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import ListedPaginator
from feedback_app.web.responses import action_view, error_response, page
from feedback_app.web.text.plurals import number_of

PAGE_SIZE = 25


@project_view(Role.ADMIN)
@page
def gold(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the gold set with its results, and who is paused."""
    query_strict(request, ("page",))
    context = {
        "project": project,
        "page": ListedPaginator(gold_items(project), PAGE_SIZE).get_page(query_page(request)),
        "pauses": pauses_open(project),
        "unrestored": pauses_unrestored(project)[:PAGE_SIZE],
    }
    return render(request, "feedback/gold.html", context)


@project_view(Role.ADMIN)
@action_view
def gold_mark_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Add a completion to the gold set."""
    completion = get_object_or_404(project.completions.only("pk"), pk=pk)
    back = reverse("gold", args=[project.slug])
    try:
        values = validated(GoldForm(request.POST))
        verdict = Verdict(values["verdict"])
        gold_mark(completion=completion, verdict=verdict, why=values["why"], by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=back)
    if project.gold_every:
        text = "Added to the gold set. Annotators get it among their other items."
    else:
        text = "Added to the gold set. Annotators get no gold items: Rules for votes turns them on."
    messages.success(request, text)
    return redirect(back)


@project_view(Role.ADMIN)
@action_view
def gold_unmark_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Remove a completion from the gold set."""
    item = get_object_or_404(project.gold_items, pk=pk)
    validated(NoFields(request.POST))
    gold_unmark(item=item, by=request.user)
    messages.info(request, "Removed from the gold set. Its votes decide again.")
    return redirect("gold", project.slug)


@project_view(Role.ADMIN)
@action_view
def pause_lift_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Lift a pause, with or without restoring votes."""
    pause = get_object_or_404(project.pauses.select_related("user", "project"), pk=pk)
    restore = validated(LiftForm(request.POST))["restore"]
    back = reverse("gold", args=[project.slug])
    try:
        restored = pause_lift(pause=pause, by=request.user, restore=restore)
    except UserError as error:
        return error_response(request, str(error), back=back)
    again = f" {number_of(restored, 'vote')} {'counts' if restored == 1 else 'count'} again."
    votes = again if restore else " Their votes stay set aside."
    messages.success(request, f"{pause.user} may judge again.{votes}")
    return redirect(back)


@project_view(Role.ADMIN)
@action_view
def votes_restore_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Restore votes that stayed set aside when a pause was lifted."""
    pause = get_object_or_404(project.pauses.select_related("user", "project"), pk=pk)
    validated(NoFields(request.POST))
    restored = votes_restore(pause=pause, by=request.user)
    messages.success(request, f"Restored {number_of(restored, 'vote')} of {pause.user}.")
    return redirect("gold", project.slug)
