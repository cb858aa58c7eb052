"""The annotator's desk: one item at a time, verdicts, and the last ten."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django_htmx.http import HttpResponseClientRefresh, HttpResponseStopPolling

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.answers import deed, page, toast
from feedback_app.feedback.forms import NoFields, SkipForm, VoteForm, accepted
from feedback_app.feedback.models import Completion, Project, Source, Verdict
from feedback_app.feedback.selectors import empty_queue, queue_progress, recent_votes
from feedback_app.feedback.services import item_skip, items_hand_out, vote_cast, vote_undo
from feedback_app.htmx import HtmxHttpRequest


def desk_context(request: HtmxHttpRequest, project: Project) -> dict[str, Any]:
    """All that the desk shows: the item, the next one, progress, the last ten."""
    items = items_hand_out(project=project, by=request.user, count=2)
    context: dict[str, Any] = {
        "project": project,
        "item": items[0] if items else None,
        "next_item": items[1] if len(items) > 1 else None,
        "progress": queue_progress(project=project, user=request.user),
    }
    if not items:
        context["empty"] = empty_queue(project=project, user=request.user)
    return context | history_context(request, project)


def history_context(request: HtmxHttpRequest, project: Project) -> dict[str, Any]:
    votes = recent_votes(project=project, user=request.user)
    last = votes[0] if votes else None
    chips = project.reasons.get(last.verdict, []) if last else []
    return {"project": project, "recent": votes, "last": last, "chips": chips}


@project_view(Role.ANNOTATOR)
@page
def annotate(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """The desk."""
    return render(request, "feedback/annotate.html", desk_context(request, project))


@project_view(Role.ANNOTATOR)
@page
def annotate_status(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Why there is nothing to do; reloads the desk once there is."""
    context = desk_context(request, project)
    if context["item"] is not None:
        return HttpResponseClientRefresh()
    response = render(request, "feedback/annotate.html#waiting", context)
    if context["empty"].reason not in ("sampling", "leased"):
        response.status_code = HttpResponseStopPolling.status_code
    return response


@project_view(Role.ANNOTATOR)
@deed
def vote(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Casts or changes a vote; the answer carries the next item."""
    completion = get_object_or_404(project.completions.select_related("project", "prompt"), pk=pk)
    form = VoteForm(request.POST)
    values = accepted(form)
    vote_cast(
        completion=completion,
        verdict=Verdict(values["verdict"]),
        by=request.user,
        source=Source.ANNOTATE,
        reasons=form.reasons_given(),
        comment=form.comment_given(),
    )
    return desk_answer(request, project, completion)


@project_view(Role.ANNOTATOR)
@deed
def vote_undo_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Takes a vote, skip or flag back and shows the item again."""
    completion = get_object_or_404(project.completions, pk=pk)
    accepted(NoFields(request.POST))
    undone = vote_undo(completion=completion, by=request.user, source=Source.ANNOTATE)
    response = desk_answer(request, project, completion)
    if request.htmx:
        return toast(response, "Taken back." if undone else "There was nothing to take back.")
    return response


@project_view(Role.ANNOTATOR)
@deed
def skip(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Passes an item by, or flags it for an admin to look at."""
    completion = get_object_or_404(project.completions, pk=pk)
    values = accepted(SkipForm(request.POST))
    item_skip(completion=completion, by=request.user, flag=values["flag"], reason=values["reason"])
    text = "Flagged: nobody else is shown it." if values["flag"] else "Skipped."
    if not request.htmx:
        messages.info(request, text)
        return redirect("annotate", project.slug)
    response = desk_answer(request, project, completion)
    undo = reverse("vote-undo", args=[project.slug, completion.pk])
    return toast(response, text, undo=undo)


def desk_answer(request: HtmxHttpRequest, project: Project, completion: Completion) -> HttpResponse:
    """The part of the desk that the request's target asks for; plain forms go back to the desk."""
    if not request.htmx:
        return redirect("annotate", project.slug)
    if request.htmx.target == "last":
        return HttpResponse(status=204)
    if request.htmx.target == "history":
        return render(
            request, "feedback/annotate.html#history-answer", history_context(request, project)
        )
    return render(
        request,
        "feedback/annotate.html#stage-answer",
        desk_context(request, project) | {"previous": completion},
    )
