"""Practice for newcomers: answers that admins have decided, with the verdict after the own one.

Nothing is stored but the round, in the session. Neither gold items nor answers that still wait for
votes are among them: whoever practises with these would know the verdict before they vote.
"""

from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.access import project_view
from feedback_app.feedback.desk.forms import PracticeForm
from feedback_app.feedback.models import Adjudication, Project, Source, Vote
from feedback_app.web.forms import NoFields, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, page

ROUND = 5
#: The newest decided answers from which a round is taken.
WINDOW = 200
SESSION = "practice"


def practice_items(project: Project, user: User) -> QuerySet[Adjudication]:
    """Return decided answers that this person has not judged, newest first.

    Only answers to prompts that were added for annotation: nobody reads another person's
    conversation here.
    """
    decided = Adjudication.objects.filter(project=project, open=False, verdict__gt="")
    newest = decided.order_by("-resolved_at").values_list("pk", flat=True)[:WINDOW]
    judged = Vote.objects.filter(completion=OuterRef("completion"), user=user)
    asked_no_more = Q(completion__queued=False) | Q(completion__vote_count__gte=project.overlap)
    return (
        Adjudication.objects.filter(
            asked_no_more,
            pk__in=list(newest),
            completion__gold=False,
            completion__flagged=False,
            completion__source__in=(Source.SAMPLED, Source.IMPORT),
            completion__prompt__source=Source.IMPORT,
        )
        .exclude(Exists(judged))
        .select_related("completion__prompt")
        .order_by("-resolved_at", "-pk")
    )


def given(request: HttpRequest, project: Project) -> dict[str, bool]:
    """Return the answers of this round by id: whether the person judged as the admin did."""
    state = request.session.get(SESSION)
    if not isinstance(state, dict) or state.get("project") != project.pk:
        return {}
    return dict(state["given"])


@project_view(Role.ANNOTATOR)
def practice(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the next answer of the round; a POST judges one and shows the decided verdict."""
    return (
        judged_page(request, project) if request.method == "POST" else item_page(request, project)
    )


@page
def item_page(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    query_strict(request, ())
    done = given(request, project)
    left = practice_items(project, request.user).exclude(pk__in=list(done))
    item = left.first() if len(done) < ROUND else None
    return practice_page(request, project, done, item=item)


@action_view
def judged_page(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    values = validated(PracticeForm(request.POST))
    items = practice_items(project, request.user)
    item = get_object_or_404(items, pk=values["completion"])
    done = given(request, project)
    right = done.setdefault(str(item.pk), values["verdict"] == item.verdict)
    request.session[SESSION] = {"project": project.pk, "given": done}
    return practice_page(request, project, done, item=item, verdict=values["verdict"], right=right)


def practice_page(
    request: HtmxHttpRequest,
    project: Project,
    done: dict[str, bool],
    *,
    item: Adjudication | None,
    **judged: Any,
) -> HttpResponseBase:
    context = {
        "project": project,
        "decided": item,
        "item": item.completion if item else None,
        "done": len(done),
        "right_ones": sum(done.values()),
        "round": ROUND,
        **judged,
    }
    return render(request, "feedback/practice.html", context)


@project_view(Role.ANNOTATOR)
@action_view
def practice_again(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Begin another round."""
    validated(NoFields(request.POST))
    request.session.pop(SESSION, None)
    return redirect("practice", project.slug)
