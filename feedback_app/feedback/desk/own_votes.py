"""A person's own votes: all of them, with the answers, to be searched and changed."""

from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view, unpaused
from feedback_app.feedback.desk.forms import OwnVoteForm
from feedback_app.feedback.desk.services import vote_and_take_next
from feedback_app.feedback.desk.views import not_found
from feedback_app.feedback.models import Project, Verdict, Vote
from feedback_app.feedback.prompts.completions import storable
from feedback_app.feedback.votes.services import VoteInput
from feedback_app.web.forms import query_choice, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import ListedPaginator
from feedback_app.web.responses import action_view, page

PAGE_SIZE = 25
#: The newest votes of a person that a search looks through.
WINDOW = 2_000
TEXT_LIMIT = 200
VERDICTS = ("", *Verdict.values)


@project_view(Role.ANNOTATOR)
@page
def own_votes(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """List the person's votes, newest first; `text` is searched in questions and answers."""
    query_strict(request, ("text", "verdict", "page"))
    text = storable(request.GET.get("text", "")[:TEXT_LIMIT]).strip()
    verdict = query_choice(request, "verdict", VERDICTS)
    mine = project.votes.filter(user=request.user)
    if text or verdict:
        mine = mine.filter(pk__in=votes_found(mine, text=text, verdict=verdict))
    state = {"text": text, "verdict": verdict}
    context = {
        "project": project,
        "page": ListedPaginator(mine.recent_of(request.user), PAGE_SIZE, of=mine).get_page(
            query_page(request)
        ),
        "text": text,
        "verdict": verdict,
        "verdicts": Verdict.choices,
        "query": urlencode({name: value for name, value in state.items() if value}),
        "window": WINDOW,
    }
    return render(request, "feedback/own_votes.html", context)


def votes_found(mine: QuerySet[Vote], *, text: str, verdict: str) -> list[int]:
    """Return the ids of those of a person's newest WINDOW votes that match.

    Read in Python: how a JSON column is compared depends on the database.
    """
    wanted = text.casefold()
    newest = mine.order_by("-updated_at", "-pk")
    columns = newest.values_list(
        "pk", "verdict", "completion__text", "completion__prompt__messages"
    )
    return [
        pk
        for pk, given, answer, asked in columns[:WINDOW]
        if verdict in ("", given)
        and (
            wanted in answer.casefold()
            or any(wanted in (turn.get("content") or "").casefold() for turn in asked)
        )
    ]


@project_view(Role.ANNOTATOR)
@action_view
def own_vote_change(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Change the verdict on an answer that the person has judged; its reasons go."""
    unpaused(request)
    get_object_or_404(project.votes, completion=pk, user=request.user)
    values = validated(OwnVoteForm(request.POST))
    verdict = Verdict(values["verdict"])
    with not_found():
        vote_and_take_next(
            project=project,
            pk=pk,
            vote_input=VoteInput(verdict),
            by=request.user,
            view=None,
            replaces=True,
        )
    messages.success(request, f"Changed to {verdict.label}.")
    back = reverse("own-votes", args=[project.slug])
    return redirect(f"{back}?{values['back']}" if values["back"] else back)
