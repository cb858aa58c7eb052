"""The list of examples uses its index, and also finds ties and empty answers."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client, RequestFactory
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.examples import listing
from feedback_app.feedback.examples.listing import ExampleFilter
from feedback_app.feedback.models import Completion, Example, Project, Verdict
from feedback_app.feedback.votes.services import vote_cast
from tests.conftest import MakeCompletions

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

As = Callable[[User], Client]


def chosen(**query: str) -> ExampleFilter:
    return ExampleFilter.of(RequestFactory().get("/", query), versions=["base", "bot@1"])


@pytest.fixture
def many(project: Project, make_completions: MakeCompletions) -> Project:
    """Enough examples for the query planner to use an index."""
    (seed,) = make_completions(1)
    rows = Completion.objects.bulk_create(
        Completion(project=project, prompt=seed.prompt, text="x", version="base", vote_count=1)
        for _ in range(2_000)
    )
    Example.objects.bulk_create(
        Example(completion=row, project=project, desirable=True, weight=1, split="train")
        for row in rows
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return project


@pytest.mark.parametrize("sort", ["newest", "oldest"])
@pytest.mark.parametrize("query", [{}, {"label": "up"}, {"split": "train"}])
def test_default_orders_use_the_index_without_a_sort(
    sort: str, query: dict[str, str], many: Project
) -> None:
    plan = chosen(sort=sort, **query).select(many)[:50].explain()

    assert "example_newest" in plan, plan
    assert "Sort" not in plan, plan
    assert "TEMP B-TREE" not in plan, plan


@pytest.mark.parametrize("sort", ["weight", "votes", "version"])
def test_other_orders_filter_by_the_index_and_sort(
    sort: str, many: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "WINDOW", 100)
    plan = chosen(sort=sort).select(many)[:50].explain()

    assert "example_newest" in plan, plan


def test_count_of_flagged_answers_uses_the_index(many: Project) -> None:
    assert "flagged_in_order" in many.completions.filter(flagged=True).explain()


def test_ties_and_empty_answers_are_listed_separately(
    project: Project,
    admin: User,
    annotator: User,
    make_completions: MakeCompletions,
    as_user: As,
    django_assert_max_num_queries: Any,
) -> None:
    up, torn, empty, _ = make_completions(4)
    Completion.objects.filter(pk=empty.pk).update(text=" ")
    for completion, by, verdict in (
        (up, annotator, Verdict.UP),
        (torn, annotator, Verdict.UP),
        (torn, admin, Verdict.DOWN),
        (empty, annotator, Verdict.DOWN),
    ):
        vote_cast(completion=completion, verdict=verdict, by=by, source="annotate")

    assert [e.completion for e in chosen().select(project)] == [up]
    for sort, rows in {
        "newest": [empty, torn],
        "oldest": [torn, empty],
        "votes": [torn, empty],
    }.items():
        assert list(chosen(label="tie", sort=sort).select(project)) == rows
    client = as_user(admin)
    with django_assert_max_num_queries(14):
        page = client.get(reverse("examples", args=["bot"]), {"label": "tie"}).content.decode()
    assert "2 answers" in " ".join(page.split())
    assert page.count(">Not used</span>") == 2
