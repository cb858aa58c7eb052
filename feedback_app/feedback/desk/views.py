"""The annotation page: one item at a time, verdicts, and the last ten votes."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, HttpResponseBase
from django.middleware.csrf import get_token
from django.shortcuts import redirect, render
from django.urls import reverse
from django_htmx.http import HttpResponseClientRefresh, HttpResponseStopPolling

from feedback_app.accounts.models import Role, roles_from
from feedback_app.feedback.access import ARCHIVED, project_view, unpaused
from feedback_app.feedback.desk.forms import CorrectedVoteForm, SkipForm
from feedback_app.feedback.desk.notices import Notice, flags_notice, notices
from feedback_app.feedback.desk.practice import practice_items
from feedback_app.feedback.desk.selectors import (
    EmptyQueue,
    empty_queue,
    queue_progress,
    queue_values,
    recent_votes,
)
from feedback_app.feedback.desk.services import (
    skip_handed_out,
    undo_handed_out,
    vote_and_take_next,
)
from feedback_app.feedback.gold.selectors import gold_at_once, gold_results
from feedback_app.feedback.models import Completion, Project, QueueOrder, Source, Verdict, Vote
from feedback_app.feedback.prompts.completions import storable
from feedback_app.feedback.prompts.selectors import sampling_stuck
from feedback_app.feedback.queue.ahead import AHEAD, items_ahead
from feedback_app.feedback.queue.services import (
    EVERYTHING,
    QueueView,
    items_hand_out,
    skips_undo,
)
from feedback_app.feedback.votes.counts import rate_limit_note
from feedback_app.feedback.votes.services import VoteInput, VoteKept
from feedback_app.web.errors import Conflict, NotFound, UserError
from feedback_app.web.forms import NoFields, query_choice, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, error_response, page, toast

#: Items of other tabs that are left out.
MOST_ELSEWHERE = 40
#: Characters of a version or topic in the URL; no stored value is longer.
QUERY_LIMIT = 80
NOTHING_UNDONE = "There was nothing to undo. A skip or flag can be undone for a minute."


def view_of(request: HtmxHttpRequest, project: Project) -> QueueView:
    """Return the filter and order of the URL. Raise UserError for invalid values."""
    query_strict(request, ("order", "version", "source", "topic"))
    text = {name: request.GET.get(name, "")[:QUERY_LIMIT] for name in ("version", "topic")}
    order = query_choice(request, "order", ("", *QueueOrder))
    return QueueView(
        # the project's order is left out, so that the URL follows a change of it
        order="" if order == project.queue_order else order,
        source=query_choice(request, "source", ("", *Source)),
        version=storable(text["version"]),
        topic=storable(text["topic"]),
    )


def stage_context(
    request: HtmxHttpRequest, project: Project, view: QueueView, items: list[Completion]
) -> dict[str, Any]:
    """Return the template context of the item, or of the reason why there is none."""
    context: dict[str, Any] = {
        "project": project,
        "view": view,
        # one lookup instead of one per form through Django's lazy object
        "csrf_token": get_token(request),
        "item": items[0] if items else None,
        "next_item": items[1] if len(items) > 1 else None,
        "progress": queue_progress(project=project, user=request.user, view=view),
    }
    rate_limit_note(project=project, by=request.user, in_hour=context["progress"].in_hour)
    if not items:
        context["empty"] = (
            EmptyQueue("paused")
            if request.paused
            else empty_queue(project=project, user=request.user, view=view)
        )
        context["gold"] = gold_results(project=project, user=request.user)
    return context


def last_context(project: Project, last: Vote | None) -> dict[str, Any]:
    """Return the last verdict with the reasons that can be given for it."""
    return {"last": last, "chips": project.reasons.get(last.verdict, []) if last else []}


def history_context(request: HtmxHttpRequest, project: Project, view: QueueView) -> dict[str, Any]:
    """Return the last ten verdicts."""
    votes = recent_votes(project=project, user=request.user)
    last = last_context(project, votes[0] if votes else None)
    return {"project": project, "view": view, "recent": votes, **last}


def desk_context(
    request: HtmxHttpRequest, project: Project, view: QueueView, items: list[Completion]
) -> dict[str, Any]:
    """Return the context of the whole page."""
    stage = stage_context(request, project, view, items)
    return stage | history_context(request, project, view)


@project_view(Role.ANNOTATOR)
@page
def annotate(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the annotation page."""
    view = view_of(request, project)
    items = items_for(request, project, view)
    context = desk_context(request, project, view, items)
    newcomer = items and not context["recent"]
    context |= {
        "practice": newcomer and practice_items(project, request.user).exists(),
        "orders": QueueOrder.choices,
        "order_now": view.order or project.queue_order,
        "sources": Source.choices,
        "versions": queue_values(project=project, field="version"),
        "topics": queue_values(project=project, field="topic"),
        "notices": notices_for(request, project),
        "stuck_sampling": sampling_stuck(project) if is_admin(request) else None,
    }
    return render(request, "feedback/annotate.html", context)


def notices_for(request: HtmxHttpRequest, project: Project) -> list[Notice]:
    """Return the notices above the item."""
    found = [] if request.paused else notices(project, request.user)
    flags = flags_notice(project) if is_admin(request) else None
    return found if flags is None else [*found, flags]


def is_admin(request: HtmxHttpRequest) -> bool:
    return request.membership.role in roles_from(Role.ADMIN)


@project_view(Role.ANNOTATOR)
@page
def annotate_status(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show why there is no item; reload the page once there is one."""
    view = view_of(request, project)
    items = items_for(request, project, view)
    if items:
        return HttpResponseClientRefresh()
    context = desk_context(request, project, view, items)
    response = render(request, "feedback/annotate.html#waiting", context)
    if context["empty"].reason not in ("sampling", "leased"):
        response.status_code = HttpResponseStopPolling.status_code
    return response


@project_view(Role.ANNOTATOR)
@page
def annotate_ahead(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Return the items that come next, for the time without a connection; those that the browser
    has already (`have`) without their content."""
    query_strict(request, ("have",))
    same_person(request)
    known = ids_of(request.GET.get("have", ""), most=2 * AHEAD)
    none = request.paused or project.archived_at
    held = [] if none else items_ahead(project=project, by=request.user)
    context = {"project": project, "view": EVERYTHING, "held": held, "known": known}
    return render(request, "feedback/annotate.html#ahead", context)


@project_view(Role.ANNOTATOR)
@action_view
def vote(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Store or change a vote; the response carries the next item."""
    same_person(request)
    unpaused(request)
    view = view_of(request, project)
    form = CorrectedVoteForm(request.POST)
    verdict = Verdict(validated(form)["verdict"])
    vote_input = VoteInput(verdict, form.reasons_given(), form.comment_given())
    next_of = view if at_desk(request) else None
    try:
        with not_found():
            step = vote_and_take_next(
                project=project,
                pk=pk,
                vote_input=vote_input,
                by=request.user,
                view=next_of,
                replaces=not form.cleaned_data["first"],
                correction=form.cleaned_data["correction"],
                elsewhere=elsewhere(request),
            )
    except VoteKept as error:
        return vote_kept_answer(request, project, pk, why=str(error), verdict=verdict)
    if next_of is None:
        return desk_answer(request, project)
    if not step.first:
        return stage_answer(request, project, view, step.items)
    # the page has nine of the last ten already
    context = stage_context(request, project, view, step.items)
    context |= last_context(project, step.vote)
    response = render(request, "feedback/annotate.html#vote-answer", context)
    message = gold_at_once(project=project, vote=step.vote)
    return toast(response, message) if message else response


def vote_kept_answer(
    request: HtmxHttpRequest, project: Project, pk: int, *, why: str, verdict: Verdict
) -> HttpResponseBase:
    """Tell the person about their earlier verdict, and show the next item."""
    if at_desk(request):
        change = {
            "url": reverse("vote", args=[project.slug, pk]),
            "verdict": verdict.value,
            "label": f"Change to {verdict.label}",
        }
        return toast(desk_answer(request, project), why, level="error", change=change)
    if request.htmx:
        return error_response(request, why)
    messages.warning(request, why)
    return desk_answer(request, project)


@project_view(Role.ANNOTATOR)
@action_view
def vote_undo_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Undo a vote, skip or flag and show the item again."""
    same_person(request)
    unpaused(request)
    validated(NoFields(request.POST))
    with not_found():
        undone = undo_handed_out(project=project, pk=pk, by=request.user)
    response = desk_answer(request, project)
    if request.htmx:
        return toast(response, "Undone." if undone else NOTHING_UNDONE)
    return response


@project_view(Role.ANNOTATOR)
@action_view
def skip(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Skip an item, or flag it for an admin."""
    same_person(request)
    unpaused(request)
    form = SkipForm(request.POST)
    values = validated(form)
    with not_found():
        skip_handed_out(
            project=project, pk=pk, by=request.user, flag=values["flag"], reason=form.why()
        )
    text = "Flagged. Nobody else gets this item." if values["flag"] else "Skipped."
    if not request.htmx:
        messages.info(request, text)
        return desk_answer(request, project)
    response = desk_answer(request, project)
    view = view_of(request, project)
    undo = reverse("vote-undo", args=[project.slug, pk]) + view.query
    return toast(response, text, undo=undo)


@project_view(Role.ANNOTATOR)
@action_view
def skips_undo_view(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the person the items again that they have skipped."""
    unpaused(request)
    validated(NoFields(request.POST))
    skips_undo(project=project, by=request.user)
    return redirect("annotate", project.slug)


def items_for(request: HtmxHttpRequest, project: Project, view: QueueView) -> list[Completion]:
    """Return the person's items; none while they are paused. Raise PermissionDenied in an archived
    project, which hands out nothing."""
    if project.archived_at:
        raise PermissionDenied(ARCHIVED)
    if request.paused:
        return []
    return items_hand_out(project=project, by=request.user, view=view, elsewhere=elsewhere(request))


def elsewhere(request: HtmxHttpRequest) -> list[int]:
    """Return the ids of the items that the person's other tabs show. Raise UserError for others."""
    return ids_of(request.headers.get("X-Elsewhere", ""), most=MOST_ELSEWHERE)


def ids_of(text: str, *, most: int) -> list[int]:
    """Return comma-separated ids. Raise UserError for anything else."""
    ids = text.split(",") if text else []
    if len(ids) > most or not all(re.fullmatch(r"[0-9]{1,18}", each) for each in ids):
        raise UserError("The page sent items that do not exist: reload it.")
    return [int(each) for each in ids]


def at_desk(request: HtmxHttpRequest) -> bool:
    """Return whether the response replaces the item, so that it carries the next one."""
    return bool(request.htmx) and request.htmx.target not in ("last", "history")


def desk_answer(request: HtmxHttpRequest, project: Project) -> HttpResponse:
    """Return the part of the page that the request targets; redirect plain forms."""
    view = view_of(request, project)
    if not request.htmx:
        return redirect(reverse("annotate", args=[project.slug]) + view.query)
    if request.htmx.target == "last":
        return HttpResponse(status=204)
    if request.htmx.target == "history":
        context = history_context(request, project, view)
        return render(request, "feedback/annotate.html#history-answer", context)
    items = items_for(request, project, view)
    return stage_answer(request, project, view, items)


def stage_answer(
    request: HtmxHttpRequest, project: Project, view: QueueView, items: list[Completion]
) -> HttpResponse:
    context = desk_context(request, project, view, items)
    return render(request, "feedback/annotate.html#stage-answer", context)


@contextmanager
def not_found() -> Iterator[None]:
    """Raise NotFound for a completion that does not exist or was not handed out to the person."""
    try:
        yield
    except Completion.DoesNotExist:
        raise NotFound(
            "This answer is no longer open for you. Other people may have judged it meanwhile."
        ) from None


def same_person(request: HtmxHttpRequest) -> None:
    """Raise Conflict if the page, or a vote that the browser kept, is another person's.

    Somebody else may have signed in on the same computer.
    """
    sender = request.headers.get("X-Person")
    if sender is not None and sender != str(request.user.pk):
        raise Conflict("Another person is signed in. Sign in again to send your verdicts.")
