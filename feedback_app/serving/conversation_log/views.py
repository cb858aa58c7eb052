"""The conversation log: what people wrote in the demo, through share links and to the gateway."""

import uuid
from typing import Any

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.examples.listing import versions_answered
from feedback_app.feedback.exports.rows import CONTENT_TYPES
from feedback_app.feedback.models import Completion, Project, Vote
from feedback_app.serving.conversation_log import export
from feedback_app.serving.conversation_log.forms import FlagForm
from feedback_app.serving.conversation_log.listing import (
    SOURCES,
    VERDICTS,
    WINDOW,
    LogFilter,
    log_rows,
    person_of,
    source_of,
    with_figures,
    with_people,
)
from feedback_app.serving.conversation_log.services import answer_flag, answer_queue
from feedback_app.serving.models import Conversation, Turn
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_choice, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import ListedPaginator
from feedback_app.web.responses import action_view, error_response, page

PAGE_SIZE = 25


@project_view(Role.ADMIN)
@page
def conversation_log(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """List the conversations, the one with the newest message first."""
    chosen = LogFilter.of(request)
    rows = chosen.select(project)
    found = ListedPaginator(with_figures(rows), PAGE_SIZE, of=rows).get_page(query_page(request))
    context = {
        "project": project,
        "chosen": chosen,
        "query": chosen.query(),
        "page": found,
        "rows": log_rows(found),
        "person": person_chosen(project, chosen),
        "unperson": chosen.query(person=""),
        "versions": versions_answered(project),
        "verdicts": VERDICTS.items(),
        "sources": SOURCES.items(),
        "window": WINDOW,
    }
    return render(request, "serving/conversation_log.html", context)


def person_chosen(project: Project, chosen: LogFilter) -> str:
    """Return the name of the person that the list is filtered by, if they wrote something here."""
    if not chosen.person:
        return ""
    theirs = Conversation.objects.kept().filter(project=project, user=int(chosen.person))
    found = with_people(theirs).first()
    return person_of(found) if found else f"Number {chosen.person}"


@project_view(Role.ADMIN)
@page
def conversation_log_export(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Stream the turns of the filter as a file, and record it in the audit trail."""
    chosen = LogFilter.of(request, also=("format",))
    kind = query_choice(request, "format", export.FORMATS)
    if request.method == "GET":
        # not what was searched for: it may be a name, and stays in the trail after an erasure
        searched = {"text": "*"} if chosen.text else {}
        target = f"{kind} {chosen.query(**searched)}".strip()[:200]
        audit(project=project, actor=request.user, action="conversations.export", target=target)
    return StreamingHttpResponse(
        export.LINES[kind](export.records(project, chosen)),
        content_type=CONTENT_TYPES[kind],
        headers={
            "Content-Disposition": f'attachment; filename="{project.slug}-conversations.{kind}"'
        },
    )


@project_view(Role.ADMIN)
@page
def logged_conversation(
    request: HtmxHttpRequest, project: Project, pk: uuid.UUID
) -> HttpResponseBase:
    """Show a whole conversation, to read: every branch, with versions and verdicts."""
    query_strict(request, ())
    kept = Conversation.objects.kept().filter(project=project)
    found = get_object_or_404(with_people(kept), pk=pk)
    shown, others = turns_of(found)
    context = {
        "project": project,
        "conversation": found,
        "person": person_of(found),
        "source": source_of(found),
        "turns": shown,
        "others": others,
        "history": history_of(shown),
    }
    return render(request, "serving/logged_conversation.html", context)


def turns_of(conversation: Conversation) -> tuple[list[Turn], list[Turn]]:
    """Return the turns of the shown branch, and those of the others in order of time."""
    answers = (
        Completion.objects.defer("token_ids", "prompt_token_ids")
        .select_related("prompt")
        .prefetch_related(Prefetch("votes", Vote.objects.with_person()))
    )
    turns = conversation.turns.order_by("pk").prefetch_related(Prefetch("completion", answers))
    shown = [turn for turn in turns if turn.position is not None]
    others = [turn for turn in turns if turn.position is None]
    return sorted(shown, key=lambda turn: turn.position or 0), others


def history_of(shown: list[Turn]) -> list[dict[str, Any]]:
    """Return what a product sent along as the messages before its first question."""
    answer = shown[0].completion if shown else None
    return list(answer.prompt.messages[:-1]) if answer is not None else []


def answer_of(project: Project, pk: uuid.UUID, turn: int) -> Completion:
    """Return the answer of a turn of this conversation, or raise 404."""
    turns = Turn.objects.filter(conversation=pk, conversation__removed_at=None)
    found = get_object_or_404(turns, pk=turn, conversation__project=project)
    return get_object_or_404(project.completions.only("pk"), pk=found.completion_id or 0)


@project_view(Role.ADMIN)
@action_view
def logged_answer_flag(
    request: HtmxHttpRequest, project: Project, pk: uuid.UUID, turn: int
) -> HttpResponseBase:
    """Flag an answer."""
    completion = answer_of(project, pk, turn)
    reason = validated(FlagForm(request.POST))["reason"]
    if answer_flag(completion=completion, by=request.user, reason=reason):
        messages.success(request, "Flagged. The Flags page lists it until it is restored.")
    else:
        messages.info(request, "It was flagged already.")
    return redirect("logged-conversation", project.slug, pk)


@project_view(Role.ADMIN)
@action_view
def logged_answer_queue(
    request: HtmxHttpRequest, project: Project, pk: uuid.UUID, turn: int
) -> HttpResponseBase:
    """Put an answer into the annotation queue."""
    completion = answer_of(project, pk, turn)
    validated(NoFields(request.POST))
    back = reverse("logged-conversation", args=[project.slug, pk])
    try:
        queued = answer_queue(completion=completion, by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=back)
    if queued:
        messages.success(request, "Sent to the annotators: it is in their queue now.")
    else:
        messages.info(request, "It is in the annotators' queue already.")
    return redirect(back)
