"""The lineage of a version and of an example."""

from urllib.parse import urlencode

from django.db.models import Exists, OuterRef
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, render

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Completion, Project, Split
from feedback_app.serving.dossier.signed_file import fingerprints
from feedback_app.serving.lineage.selectors import (
    ingredients,
    items_of_completion,
    items_of_snapshot,
    people_of_snapshot,
    uses_of,
    version_lineage,
)
from feedback_app.training.models import Adapter
from feedback_app.web.forms import query_choice, query_number, query_page, query_strict
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import CountedPaginator, ListedPaginator
from feedback_app.web.responses import page

PAGE_SIZE = 25


@project_view(Role.ADMIN)
@page
def lineage(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Show a version's releases, run and snapshot, and its examples with their votes; `person`
    selects the examples that one person judged, `show=people` lists the people instead."""
    query_strict(request, ("show", "split", "person", "page"))
    show = query_choice(request, "show", ("", "people"))
    split = query_choice(request, "split", ("", *Split.values))
    number = query_page(request)
    adapters = Adapter.objects.select_related("run__snapshot", "run__requested_by").defer("report")
    adapter = get_object_or_404(adapters, project=project, name=name)
    adapter.project = adapter.run.project = project
    found = version_lineage(adapter)
    person = person_of(request, project)
    context = {
        "project": project,
        "lineage": found,
        "show": show,
        "split": split,
        "splits": Split.choices,
        "fingerprints": fingerprints(),
        "person": person,
        "query": urlencode(
            {
                key: value
                for key, value in (
                    ("show", show),
                    ("split", split),
                    ("person", person.pk if person else ""),
                )
                if value
            }
        ),
    }
    if show:
        rows = CountedPaginator(people_of_snapshot(found.snapshot), PAGE_SIZE).get_page(number)
    else:
        items = items_of_snapshot(found.snapshot, split=split, person=person.pk if person else None)
        rows = ListedPaginator(items, PAGE_SIZE).get_page(number)
        context["examples"] = ingredients(rows, found.snapshot)
    return render(request, "serving/lineage.html", context | {"page": rows})


def person_of(request: HtmxHttpRequest, project: Project) -> User | None:
    """Return the person of the query, or raise 404 for somebody without a vote in the project."""
    if "person" not in request.GET:
        return None
    votes = project.votes.filter(user=OuterRef("pk"))
    return get_object_or_404(User, Exists(votes), pk=query_number(request, "person"))


@project_view(Role.ADMIN)
@page
def completion_lineage(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Show which runs and versions used the example of an answer, with the votes of then."""
    query_strict(request, ("page",))
    answers = Completion.objects.select_related("prompt", "example").defer(
        "token_ids", "prompt_token_ids"
    )
    completion = get_object_or_404(answers, project=project, pk=pk)
    items = items_of_completion(completion)
    rows = CountedPaginator(items, PAGE_SIZE).get_page(query_page(request))
    context = {
        "project": project,
        "completion": completion,
        "uses": uses_of(rows, project),
        "page": rows,
    }
    return render(request, "serving/completion_lineage.html", context)
