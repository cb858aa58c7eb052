"""The pages of blind pairs: one pair for annotators, and all pairs of an ended batch for admins."""

from typing import Any

from django.contrib import messages
from django.db.models import Prefetch
from django.http import Http404, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view, unpaused
from feedback_app.feedback.models import Project
from feedback_app.training.gate.people.forms import PairForm
from feedback_app.training.gate.people.selectors import (
    batch_progress,
    pair_last,
    pair_next,
    pairs_judged,
    pairs_waiting,
)
from feedback_app.training.gate.people.services import batch_close, pair_judge, pair_undo
from feedback_app.training.gate.people.sides import sides_of
from feedback_app.training.models import Adapter, BlindPair, PairVote
from feedback_app.web.errors import Conflict, UserError
from feedback_app.web.forms import NoFields, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import CountedPaginator
from feedback_app.web.responses import action_view, error_response, page

PAGE_SIZE = 25


def pair_of(project: Project, pk: int) -> BlindPair:
    """Return a pair of the project, or raise 404."""
    return get_object_or_404(BlindPair.objects.filter(batch__project=project), pk=pk)


def pair_context(
    request: HtmxHttpRequest,
    project: Project,
    pair: BlindPair | None,
    *,
    waiting: int,
    vote: PairVote | None = None,
) -> dict[str, Any]:
    return {
        "project": project,
        # the bar at the top names the live version on other pages
        "blind": True,
        "pair": pair,
        "sides": sides_of(pair, request.user, vote) if pair else None,
        "waiting": waiting,
        "last": pair_last(project, request.user),
    }


@project_view(Role.ANNOTATOR)
@page
def pairs(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the person's next pair, or that there is none."""
    query_strict(request, ())
    found, waiting = (None, 0) if request.paused else pair_next(project, request.user)
    context = pair_context(request, project, found, waiting=waiting)
    return render(request, "training/pairs.html", context)


@project_view(Role.ANNOTATOR)
@page
def pair(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Show one pair again, with the person's choice, which can be changed until the end."""
    query_strict(request, ())
    rows = BlindPair.objects.open_for(request.user)
    found = get_object_or_404(rows.filter(batch__project=project), pk=pk)
    if request.paused:
        return redirect("pairs", project.slug)
    context = pair_context(
        request,
        project,
        found,
        waiting=pairs_waiting(project, request.user),
        vote=found.votes.filter(user=request.user).first(),
    )
    return render(request, "training/pairs.html", context)


@project_view(Role.ANNOTATOR)
@action_view
def pair_vote(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Store or change the person's choice, and go on to the next pair.

    Others may have judged the pair, or ended the batch, while this person was reading: that is no
    error.
    """
    back = reverse("pairs", args=[project.slug])
    found = pair_of(project, pk)
    try:
        unpaused(request)
        side = PairVote.Side(validated(PairForm(request.POST))["choice"])
        pair_judge(pair=found, by=request.user, side=side)
    except Conflict as ended:
        messages.info(request, str(ended))
    except UserError as error:
        return error_response(request, str(error), back=back)
    return redirect(back)


@project_view(Role.ANNOTATOR)
@action_view
def pair_vote_undo(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Withdraw the person's choice and show the pair again."""
    validated(NoFields(request.POST))
    found = pair_of(project, pk)
    try:
        unpaused(request)
        pair_undo(pair=found, by=request.user)
    except UserError as error:
        back = reverse("pairs", args=[project.slug])
        return error_response(request, str(error), back=back)
    return redirect("pair", project.slug, found.pk)


# -- admins


def adapter_of_run(project: Project, number: int) -> Adapter:
    """Return the version of the project's run of this number, or raise 404."""
    rows = Adapter.objects.select_related("run").defer("report")
    return get_object_or_404(rows, project=project, run__number=number)


@project_view(Role.ADMIN)
@page
def run_pairs(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    """Show the pairs of a batch that has ended, with the names of the versions."""
    query_strict(request, ("page",))
    adapter = adapter_of_run(project, number)
    progress = batch_progress(adapter)
    if progress is None or not progress.batch.end:
        raise Http404("No pairs, or people still judge them without knowing the versions.")
    rows = progress.batch.pairs.order_by("position")
    votes = Prefetch("votes", PairVote.objects.only("pair", "choice"))
    found = CountedPaginator(rows.prefetch_related(votes), PAGE_SIZE, of=rows)
    shown = found.get_page(query_page(request))
    context = {
        "project": project,
        "run": adapter.run,
        "adapter": adapter,
        "opponent": adapter.gate.get("opponent", "base"),
        "progress": progress,
        "page": shown,
        "rows": pairs_judged(shown),
    }
    return render(request, "training/run_pairs.html", context)


@project_view(Role.ADMIN)
@action_view
def run_pairs_close(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    """End a batch early."""
    validated(NoFields(request.POST))
    back = reverse("run", args=[project.slug, number])
    progress = batch_progress(adapter_of_run(project, number))
    if progress is None:
        raise Http404("No pairs.")
    try:
        batch_close(batch=progress.batch, by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=back)
    messages.success(request, "The pairs are closed. The gate decides by the votes until now.")
    return redirect(back)
