"""Where a version came from, and which versions used an example or a vote."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project, Source, Split, Verdict
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.serving.models import Release
from feedback_app.training.models import Adapter, Run
from feedback_app.training.runs.services import run_request

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]
LIBRARIES = {"python": "3.11.9", "torch": "2.9.1"}
HARDWARE = {"processor": "Some CPU", "cores": 8, "system": "Linux 6, x86_64", "gpus": ["H200"]}


def version_of(project: Project, by: User, *, start: str | None = None) -> Adapter:
    """A finished run on the project's examples with its version, without files."""
    run = run_request(project=project, by=by)
    run.status = Run.Status.SUCCEEDED
    run.facts = {"device": "cpu", "libraries": LIBRARIES, "hardware": HARDWARE}
    if start:
        run.config |= {"start_adapter": f"../../adapters/{start}"}
    run.save()
    name = project.adapter_name(run.number)
    return Adapter.objects.create(
        project=project, run=run, name=name, path=f"adapters/{name}", sha256=str(run.number) * 64
    )


def page(client: Client, name: str, *args: object, query: str = "") -> Any:
    return client.get(reverse(name, args=["bot", *args]) + query)


@pytest.fixture
def version(voted_project: Project, admin: User) -> Adapter:
    return version_of(voted_project, admin)


def test_version_shows_every_part_down_to_the_people(
    version: Adapter, admin: User, as_user: As
) -> None:
    Release.objects.create(project=version.project, adapter=version, reason="Better manners")
    version.run.snapshot.sha256 = "5" * 64
    version.run.snapshot.save()

    found = page(as_user(admin), "lineage", version.name)

    text = found.content.decode()
    for part in ("Better manners", "1" * 64, "5" * 64, "torch 2.9.1", "Some CPU", "H200", "Run 1"):
        assert part in text, part
    assert "Learning rate" in text
    assert len(found.context["examples"]) == 25
    assert {vote.user.name for row in found.context["examples"] for vote in row.votes} == {
        "Ann Otator"
    }


def test_examples_are_listed_by_page_split_and_person(
    version: Adapter, admin: User, annotator: User, as_user: As
) -> None:
    client = as_user(admin)
    total = version.run.snapshot.items.count()

    assert page(client, "lineage", version.name, query="?page=3").context["page"].number == 3
    tests = page(client, "lineage", version.name, query="?split=test").context["page"]
    assert tests.paginator.count == version.run.snapshot.test_total
    people = page(client, "lineage", version.name, query="?show=people").context["page"]
    assert list(people) == [annotator]
    theirs = page(client, "lineage", version.name, query=f"?person={annotator.pk}")
    assert theirs.context["page"].paginator.count == total
    for query in ("?split=all", "?person=x", "?other=1"):
        assert page(client, "lineage", version.name, query=query).status_code == 400
    # whoever has no vote in the project is not even named
    assert page(client, "lineage", version.name, query=f"?person={admin.pk}").status_code == 404


def test_example_shows_the_versions_that_used_its_votes_as_they_were(
    version: Adapter, voted_project: Project, admin: User, annotator: User, as_user: As
) -> None:
    # of the training split: without a down among the test examples no run would start
    downs = voted_project.examples.filter(desirable=False, split=Split.TRAIN)
    completion = downs.order_by("pk")[0].completion
    vote_undo(completion=completion, by=annotator, source=Source.ANNOTATE)
    vote_cast(completion=completion, verdict=Verdict.UP, by=admin, source=Source.ANNOTATE)
    second = version_of(voted_project, admin, start=version.name)
    third = version_of(voted_project, admin, start=second.name)

    uses = page(as_user(admin), "completion-lineage", completion.pk).context["uses"]

    seen = [
        (use.adapter, use.item.desirable, [(v.user, v.verdict) for v in use.votes], use.after)
        for use in uses
    ]
    assert seen == [
        (third, True, [(admin, "up")], []),
        (second, True, [(admin, "up")], [third.name]),
        (version, False, [(annotator, "down")], [second.name, third.name]),
    ]
    before = page(as_user(admin), "lineage", third.name).context["lineage"]
    assert before.before == [second.name, version.name]


def test_unused_answer_says_so(
    project: Project, admin: User, as_user: As, make_completions: Callable[..., list[Completion]]
) -> None:
    [completion] = make_completions(1)
    text = page(as_user(admin), "completion-lineage", completion.pk).content.decode()
    assert "No run has used it yet." in text


def test_queries_do_not_grow(
    version: Adapter,
    voted_project: Project,
    admin: User,
    as_user: As,
    django_assert_max_num_queries: Any,
) -> None:
    for _ in range(3):
        version_of(voted_project, admin, start=version.name)
    Release.objects.create(project=voted_project, adapter=version)
    client = as_user(admin)
    completion = voted_project.completions.order_by("pk")[1]

    with django_assert_max_num_queries(12):
        page(client, "lineage", version.name)
    with django_assert_max_num_queries(13):
        page(client, "completion-lineage", completion.pk)


def test_pages_are_for_admins(
    version: Adapter, annotator: User, outsider: User, as_user: As
) -> None:
    for who, status in ((annotator, 403), (outsider, 404)):
        assert page(as_user(who), "lineage", version.name).status_code == status
        pk = version.project.completions.order_by("pk")[0].pk
        assert page(as_user(who), "completion-lineage", pk).status_code == status
