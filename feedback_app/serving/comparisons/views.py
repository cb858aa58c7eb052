"""The Compare page: two versions answer a question and are judged blind."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view, unpaused
from feedback_app.feedback.models import BASE_VERSION, Completion, Project, Prompt
from feedback_app.serving.comparisons.forms import CompareForm, JudgeForm
from feedback_app.serving.comparisons.services import (
    SIDES,
    Side,
    comparison_begin,
    comparison_judge,
    comparison_withdraw,
    results,
    side_is_open,
    side_stream,
)
from feedback_app.serving.demo.conversations import versions_offered
from feedback_app.serving.demo.events import WAITING, event, event_stream
from feedback_app.serving.demo.views import refused_text, wants_stream
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.models import Comparison
from feedback_app.serving.open_answers.services import person_place
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, error_response, page

IDEAS_SHOWN = 4


@dataclass(frozen=True)
class Shown:
    """One side of the page; `version` is empty until the choice is made."""

    side: Side
    letter: str
    answer: Completion | None
    error: str
    is_open: bool
    version: str
    better: bool


def comparison_of(request: HtmxHttpRequest, project: Project, pk: uuid.UUID) -> Comparison:
    """Return the person's own comparison, or raise 404."""
    own = Comparison.objects.filter(project=project, user=request.user)
    found: Comparison = get_object_or_404(own.select_related("left", "right", "user"), pk=pk)
    found.project = project
    return found


def own_page(comparison: Comparison) -> str:
    return reverse("comparison", args=[comparison.project.slug, comparison.pk])


def shown(comparison: Comparison, side: Side) -> Shown:
    return Shown(
        side=side,
        letter="AB"[SIDES.index(side)],
        answer=getattr(comparison, side),
        error=getattr(comparison, f"{side}_error"),
        is_open=side_is_open(comparison, side),
        version=getattr(comparison, f"{side}_version") if comparison.choice else "",
        better=comparison.choice == side,
    )


def compare_context(project: Project, comparison: Comparison | None) -> dict[str, Any]:
    live = project.live_version
    chosen = (comparison.left_version, comparison.right_version) if comparison else ()
    versions = versions_offered(project, *chosen)
    newest = [*versions[1:], BASE_VERSION]
    pair = sorted(chosen) or [live, next((name for name in newest if name != live), live)]
    return {
        "project": project,
        "comparison": comparison,
        "sides": [shown(comparison, side) for side in SIDES] if comparison else [],
        "choices": [each for each in Comparison.Choice if each != Comparison.Choice.WITHDRAWN],
        "versions": versions,
        "pair": pair,
        "is_first": comparison is None,
        "results": results(project),
        "ideas": () if comparison and not comparison.choice else ideas(project, comparison),
    }


def ideas(project: Project, comparison: Comparison | None) -> list[Prompt]:
    """Return some of the project's prompts, different ones after each comparison."""
    prompts = project.prompts.active().exclude(topic="").order_by("content_hash")
    found = prompts.filter(content_hash__gte=comparison.pk.hex if comparison else "")
    return list(found[:IDEAS_SHOWN]) or list(prompts[:IDEAS_SHOWN])


@project_view(Role.VIEWER)
@page
def compare(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the form for a comparison and the results so far."""
    query_strict(request, ())
    return render(request, "serving/compare.html", compare_context(project, None))


@project_view(Role.VIEWER)
@action_view
def comparison_new(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Create a comparison and redirect to its page, which generates the answers."""
    try:
        values = validated(CompareForm(request.POST))
        fresh = comparison_begin(
            project=project,
            user=request.user,
            question=values["question"],
            versions=(values["one"], values["other"]),
        )
    except UserError as error:
        return error_response(request, str(error), back=reverse("compare", args=[project.slug]))
    return redirect("comparison", project.slug, fresh.pk)


@project_view(Role.VIEWER)
@page
def comparison(request: HtmxHttpRequest, project: Project, pk: uuid.UUID) -> HttpResponseBase:
    """Show a comparison; a script, or buttons without one, generate missing answers."""
    found = comparison_of(request, project, pk)
    return render(request, "serving/compare.html", compare_context(project, found))


@project_view(Role.VIEWER)
@action_view
def comparison_answer(
    request: HtmxHttpRequest, project: Project, pk: uuid.UUID, side: str
) -> HttpResponseBase:
    """Generate one answer: as a stream, or completely before redirecting to the page."""
    found = comparison_of(request, project, pk)
    validated(NoFields(request.POST))
    chosen = next((each for each in SIDES if each == side), None)
    if chosen is None:
        raise Http404("No such side.")
    try:
        with person_place(request.user.pk) as place:
            pieces = side_stream(comparison=found, side=chosen)
            if wants_stream(request):
                return event_stream(place.hold(side_events(request, found, chosen, pieces)))
            for _ in pieces:
                place.renew()
    except UserError as error:
        if wants_stream(request):
            return refused_text(error)
        raise
    except EngineError as error:
        messages.error(request, str(error))
    return redirect("comparison", project.slug, found.pk)


def side_events(
    request: HtmxHttpRequest, comparison: Comparison, side: Side, pieces: Iterator[str]
) -> Iterator[str]:
    """Yield the pieces, then the side's HTML, with `ready` once both answers are complete."""
    project = comparison.project
    name = "done"
    try:
        for piece in pieces:
            yield event("piece", text=piece) if piece else WAITING
    except EngineError:
        name = "error"
    finally:
        pieces.close()  # type: ignore[attr-defined]
    fresh = comparison_of(request, project, comparison.pk)
    context = {"side": shown(fresh, side), "comparison": fresh, "project": project}
    html = render_to_string("serving/_side.html", context, request=request)
    yield event(name, html=html, ready=fresh.ready)


@project_view(Role.VIEWER)
@action_view
def comparison_judge_view(
    request: HtmxHttpRequest, project: Project, pk: uuid.UUID
) -> HttpResponseBase:
    """Store the choice; the names are shown from then on."""
    found = comparison_of(request, project, pk)
    try:
        unpaused(request)
        comparison_judge(comparison=found, choice=validated(JudgeForm(request.POST))["choice"])
    except UserError as error:
        return error_response(request, str(error), back=own_page(found))
    return redirect(own_page(found))


@project_view(Role.VIEWER)
@action_view
def comparison_withdraw_view(
    request: HtmxHttpRequest, project: Project, pk: uuid.UUID
) -> HttpResponseBase:
    """Withdraw the choice."""
    found = comparison_of(request, project, pk)
    validated(NoFields(request.POST))
    try:
        unpaused(request)
        comparison_withdraw(comparison=found)
    except UserError as error:
        return error_response(request, str(error), back=own_page(found))
    messages.success(request, "Undone: both votes were removed.")
    return redirect(own_page(found))
