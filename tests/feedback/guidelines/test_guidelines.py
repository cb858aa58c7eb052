"""Guidelines are versioned, and a vote records the version it was cast under."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.guidelines.forms import MOST_CHARACTERS
from feedback_app.feedback.guidelines.services import DiffLine, difference
from feedback_app.feedback.models import GuidelinesVersion, Project, Source, Verdict, Vote
from feedback_app.feedback.projects.services import project_change
from feedback_app.feedback.votes.services import vote_cast
from tests.conftest import MakeCompletions, hand_out

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
SETTINGS = {
    "name": "Support bot",
    "system_prompt": "Be brief.",
    "overlap": "1",
    "validation_percent": "15",
    "test_percent": "25",
    "queue_order": "balanced",
    "max_tokens": "64",
    "temperature": "0.7",
    "top_p": "0.9",
    "reasoning": "read",
}


def change(project: Project, by: User, text: str) -> Project:
    return project_change(project=project, by=by, changes={"guidelines": text})


def test_vote_records_the_guidelines_version(
    project: Project, admin: User, annotator: User, make_completions: MakeCompletions, as_user: As
) -> None:
    first, second = make_completions(2)
    hand_out(annotator, first, second)
    client = as_user(annotator)
    client.post(reverse("vote", args=[project.slug, first.pk]), {"verdict": "up"})
    change(project, admin, "Only honest.")

    htmx = {"HX-Request": "true", "HX-Target": "stage"}
    url = reverse("vote", args=[project.slug, second.pk])
    client.post(url, {"verdict": "down"}, headers=htmx)

    numbers = dict(Vote.objects.values_list("completion", "guidelines_number"))
    assert numbers == {first.pk: 1, second.pk: 2}
    assert list(second.vote_events.values_list("guidelines_number", flat=True)) == [2]
    assert "under guidelines 1" in client.get(reverse("annotate", args=["bot"])).content.decode()
    page = as_user(admin).get(reverse("examples", args=["bot"])).content.decode()
    assert "given under version 1 of the guidelines" in page
    assert "given under version 2 of the guidelines" in page


def test_verdict_cast_again_records_the_current_guidelines_version(
    project: Project, admin: User, annotator: User, make_completions: MakeCompletions
) -> None:
    [completion] = make_completions()
    for source in (Source.ANNOTATE, Source.ANNOTATE, Source.IMPORT):
        vote = vote_cast(completion=completion, verdict=Verdict.UP, by=annotator, source=source)
        completion.project = change(project, admin, f"Rule for {source} {project.pk}.")
        seen = vote.guidelines_number
        if source == Source.IMPORT:
            assert seen == 0, "imported labels have no guidelines version"

    assert completion.vote_events.count() == 1


def test_settings_write_a_version_only_when_the_guidelines_change(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    url = reverse("project-settings", args=["bot"])
    same = project.guidelines.replace("\n", "\r\n")
    client.post(url, SETTINGS | {"guidelines": same})
    client.post(url, SETTINGS | {"guidelines": "Short.\r\nKind."})
    client.post(url, SETTINGS | {"guidelines": "Short.\r\nKind.", "overlap": "2"})

    versions = list(GuidelinesVersion.objects.order_by("number").values_list("number", "text"))
    assert versions == [(1, "**Short** and honest."), (2, "Short.\nKind.")]
    project.refresh_from_db()
    assert (project.guidelines_number, project.overlap) == (2, 2)


def test_settings_keep_fields_changed_by_others_meanwhile(project: Project, admin: User) -> None:
    Project.objects.filter(pk=project.pk).update(live_version="bot@3")

    change(project, admin, "New.")

    assert Project.objects.get(pk=project.pk).live_version == "bot@3"


def test_history_shows_what_each_version_changed(
    project: Project, admin: User, annotator: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        change(project, admin, f"Short.\n<b>Rule {number}</b>")
    client = as_user(annotator)

    with django_assert_max_num_queries(7):
        page = client.get(reverse("guidelines", args=["bot"])).content.decode()

    newest = page.split('id="version-13"')[1].split('id="version-12"')[0]
    assert "<del>" in newest
    assert "&lt;b&gt;Rule 10&lt;/b&gt;</del>" in newest
    assert "&lt;b&gt;Rule 11&lt;/b&gt;</ins>" in newest
    # the oldest version on this page is compared with the first one on the next
    oldest = page.split('id="version-4"')[1]
    assert "Rule 1&lt;/b&gt;</del>" in oldest


def test_difference_shows_context_around_a_change() -> None:
    before = "\n".join("abcdefghij")

    lines = difference(before, before.replace("e", "E"))

    kinds = [(line.kind, line.text) for line in lines]
    assert kinds == [
        ("gap", ""),
        ("same", "c"),
        ("same", "d"),
        ("removed", "e"),
        ("added", "E"),
        ("same", "f"),
        ("same", "g"),
        ("gap", ""),
    ]
    assert difference("", "new") == [DiffLine("added", "new")]
    assert difference("same", "same") == []


def test_difference_of_far_changes_leaves_out_what_is_between() -> None:
    before = "\n".join("abcdefghij")

    lines = difference(before, before.replace("b", "B").replace("i", "I"))

    kinds = [(line.kind, line.text) for line in lines]
    assert kinds[:6] == [
        ("same", "a"),
        ("removed", "b"),
        ("added", "B"),
        ("same", "c"),
        ("same", "d"),
        ("gap", ""),
    ]
    assert kinds[6:] == [
        ("same", "g"),
        ("same", "h"),
        ("removed", "i"),
        ("added", "I"),
        ("same", "j"),
    ]


def test_difference_of_many_lines_ends() -> None:
    """Every second line is the same: compared one by one, this would take hours."""
    before, after = ["x", "y"] * 9_000, ["z", "x"] * 9_000

    lines = difference("\n".join(before), "\n".join(after))

    assert [line.text for line in lines if line.kind == "removed"] == before
    assert [line.text for line in lines if line.kind == "added"] == after


def test_difference_of_a_long_text_finds_the_lines_that_changed() -> None:
    before = [line for number in range(400) for line in (f"Rule {number}.", "")] + ["End."]
    after = ["First.", *before[:400], "Another.", *before[401:], "Last."]

    lines = difference("\n".join(before), "\n".join(after))

    assert [line.text for line in lines if line.kind == "removed"] == ["Rule 200."]
    added = [line.text for line in lines if line.kind == "added"]
    assert added == ["First.", "Another.", "Last."]


def test_guidelines_that_are_too_long_are_refused_and_kept_in_the_form(
    project: Project, admin: User, as_user: As
) -> None:
    client, url = as_user(admin), reverse("project-settings", args=["bot"])
    longest = "é\r\n" * (MOST_CHARACTERS // 2 - 1) + "ok"

    answer = client.post(url, SETTINGS | {"guidelines": longest + "!"})
    page = answer.content.decode()
    assert answer.status_code == 400
    assert f"at most {MOST_CHARACTERS} characters (it has {MOST_CHARACTERS + 1})" in page
    assert "ok!</textarea>" in page, "what was typed is still there"
    assert "maxlength" not in page.split('name="guidelines"')[1].split(">")[0]
    assert GuidelinesVersion.objects.count() == 1

    assert client.post(url, SETTINGS | {"guidelines": longest}).status_code == 302
    assert GuidelinesVersion.objects.count() == 2


def test_migration_makes_existing_guidelines_version_one(project: Project) -> None:
    GuidelinesVersion.objects.all().delete()
    Project.objects.update(guidelines_number=0)

    migration = import_module("feedback_app.feedback.migrations.0009_first_guidelines")
    migration.write(apps, None)
    migration.write(apps, None)

    assert GuidelinesVersion.objects.get().text == project.guidelines
    assert Project.objects.get().guidelines_number == 1
