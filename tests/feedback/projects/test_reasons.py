"""Reasons are defined per project: admins edit them, votes keep their keys, a skip may have one."""

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Skip, Verdict, Vote
from feedback_app.feedback.projects.reasons import chips_read, chips_text
from tests.conftest import MakeCompletions, hand_out

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]
HTMX = {"HX-Request": "true", "HX-Target": "stage"}


def settings(project: Project, **changes: str) -> dict[str, str]:
    """Return the settings form's current values with these changes."""
    form = {
        "name": project.name,
        "overlap": "1",
        "validation_percent": "15",
        "test_percent": "25",
        "queue_order": "balanced",
        "max_tokens": "128",
        "temperature": "0.8",
        "top_p": "0.95",
        "reasoning": "read",
    }
    return form | changes


def test_lines_and_chips_convert_both_ways() -> None:
    chips = chips_read(" wrong : Wrong fact\n\nNot very kind\nx:y: z")

    assert chips == [
        {"key": "wrong", "label": "Wrong fact"},
        {"key": "not_very_kind", "label": "Not very kind"},
        {"key": "x", "label": "y: z"},
    ]
    assert chips_read(chips_text(chips)) == chips


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("Wrong!: no", "lower-case letters"),
        ("a: one\na: two", "the key a is used twice"),
        ("a: " + "x" * 41, "1 to 40"),
        ("a:", "1 to 40"),
        ("\n".join(f"k{n}: l" for n in range(10)), "At most 9"),
        ("…", "lower-case letters"),
    ],
)
def test_bad_lines_are_reported(lines: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        chips_read(lines)


def test_admin_changes_reasons_and_votes_keep_their_keys(
    project: Project, admin: User, annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    item, other = make_completions(2)
    hand_out(annotator, item)
    client = as_user(annotator)
    vote = {"verdict": "down", "reasons": ["wrong"]}
    client.post(reverse("vote", args=["bot", item.pk]), vote, headers=HTMX)
    url = reverse("project-settings", args=["bot"])
    page = as_user(admin).get(url).content.decode()
    assert "wrong: Wrong fact" in page

    lines = "wrong: <b>Falsch</b>\nunkind: Unkind"
    assert as_user(admin).post(url, settings(project, reasons_down=lines)).status_code == 302

    project.refresh_from_db()
    assert project.reasons["up"], "reasons not sent are unchanged"
    assert [chip["key"] for chip in project.reasons["down"]] == ["wrong", "unkind"]
    assert Vote.objects.get(completion=item).reasons == ["wrong"]
    client.get(reverse("annotate", args=["bot"]))
    vote = {"verdict": "down", "reasons": ["unkind"]}
    answer = client.post(reverse("vote", args=["bot", other.pk]), vote, headers=HTMX)
    assert "&lt;b&gt;Falsch&lt;/b&gt;" in answer.content.decode()
    assert Vote.objects.get(completion=other).reasons == ["unkind"]
    refused = as_user(admin).post(url, settings(project, reasons_up="a: one\na: two"))
    assert refused.status_code == 400
    assert "the key a is used twice" in refused.content.decode()


@pytest.mark.parametrize("flag", [False, True])
def test_comment_is_stored_as_the_reason_of_a_skip(
    flag: bool, annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    item = make_completions(2)[0]
    hand_out(annotator, item)
    fields = {"comment": "It is in Welsh."} | ({"flag": "on"} if flag else {})

    as_user(annotator).post(reverse("skip", args=["bot", item.pk]), fields, headers=HTMX)

    skip = Skip.objects.get()
    assert (skip.reason, skip.flag) == ("It is in Welsh.", flag)
    assert not Vote.objects.filter(verdict=Verdict.UP).exists()
