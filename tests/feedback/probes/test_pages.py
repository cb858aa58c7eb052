"""The page of the probes in all its states, and the way to it from a decided answer."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.adjudication.services import adjudication_decide
from feedback_app.feedback.models import Completion, Probe, Project, Source, Verdict
from feedback_app.feedback.probes import services, views
from feedback_app.feedback.probes.services import probe_add, probe_retire
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.training.models import GateRules
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.services import run_finish, run_request
from tests.conftest import MakeCompletions
from tests.training.gate.reports import gate_report, probe_entry

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
FIELDS = {"prompt": "What does it cost?", "kind": "contains", "pattern": "9 euros", "note": "Fix."}


def url(name: str, *args: Any) -> str:
    return reverse(name, args=["bot", *args])


def add(project: Project, by: User, pattern: str = "9 euros") -> Probe:
    messages = [{"role": "user", "content": "What does it cost?"}]
    kind = Probe.Kind.CONTAINS
    return probe_add(project=project, by=by, messages=messages, kind=kind, pattern=pattern)


def text_of(client: Client, query: str = "") -> str:
    response = client.get(url("probes") + query)
    assert response.status_code == 200
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def judged(project: Project, by: User, *probes: dict[str, Any]) -> None:
    """Finish a run whose version has answered these probes."""
    claim = run_claim(run_request(project=project, by=by).pk)
    assert claim is not None
    report = gate_report("bot@1") | {"probes": list(probes)}
    assert run_finish(claim=claim, path="p", sha256="0", report=report, fit={}) is not None


def test_page_without_probes_says_how_to_make_one(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    assert "No probes yet" in text_of(client)
    assert "No retired probes" in text_of(client, "?show=retired")
    assert url("probes") in client.get(url("gate-rules")).content.decode()
    assert url("gate-rules") in client.get(url("probes")).content.decode()


def test_probe_is_added_by_the_form_and_listed(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    response = client.post(
        url("probes"), FIELDS | {"prompt": "Two\r\nlines <b>?", "pattern": "<i>"}, follow=True
    )
    page = response.content.decode()
    assert "Added. The next run&#x27;s gate checks it." in page
    assert "Not asked yet" in page
    assert "contains “&lt;i&gt;”" in page
    assert "<b>?" not in page
    probe = project.probes.get()
    assert probe.messages == [{"role": "user", "content": "Two\nlines <b>?"}]
    assert (probe.created_by, probe.note, probe.completion) == (admin, "Fix.", None)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"pattern": ""}, "This field is required"),
        ({"pattern": "(", "kind": "matches"}, "no regular expression of Python"),
        ({"prompt": " "}, "This field is required"),
        ({"kind": "sounds"}, "Select a valid choice"),
        ({"surprise": "1"}, "Unknown fields: surprise"),
    ],
)
def test_faulty_form_keeps_what_was_typed(
    project: Project, admin: User, as_user: As, changed: dict[str, str], text: str
) -> None:
    response = as_user(admin).post(url("probes"), FIELDS | changed)
    assert response.status_code == 400
    page = response.content.decode()
    assert text in page
    assert 'value="Fix."' in page
    assert not project.probes.exists()


def test_retired_probe_moves_to_its_own_list_and_back(
    project: Project, admin: User, as_user: As
) -> None:
    client, probe = as_user(admin), add(project, admin)
    page = client.post(url("probe-retire", probe.pk), follow=True).content.decode()
    assert "Retired. You can restore it" in page
    assert "No probes yet" in page
    assert "9 euros" in text_of(client, "?show=retired")
    page = client.post(url("probe-restore", probe.pk), follow=True).content.decode()
    assert "Restored." in page
    assert "9 euros" in text_of(client)


def test_probe_that_is_one_too_many_stays_retired(
    project: Project, admin: User, as_user: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = add(project, admin)
    probe_retire(probe=probe, by=admin)
    monkeypatch.setattr(services, "MOST_ACTIVE", 0)
    page = as_user(admin).post(url("probe-restore", probe.pk), follow=True).content.decode()
    assert "at most 0 active probes" in page
    probe.refresh_from_db()
    assert probe.retired_at is not None


def test_results_of_the_newest_version_are_shown(
    voted_project: Project, admin: User, as_user: As
) -> None:
    kept, broken, long, slow, fresh = (
        add(voted_project, admin, pattern) for pattern in ("ka", "kb", "kc", "kd", "ke")
    )
    judged(
        voted_project,
        admin,
        probe_entry(kept.pk, {"bot@1": [True, False], "base": [False, False]}),
        probe_entry(broken.pk, {"bot@1": [False, False], "base": [True, True]}),
        probe_entry(long.pk, {"bot@1": [], "base": []}),
        probe_entry(slow.pk, {"bot@1": [None, None], "base": [False, True]}),
    )
    client = as_user(admin)
    page = text_of(client)
    rows = {
        probe.pk: re.search(rf"(Kept|Broken|Too long|Not asked yet)[^“]*“{probe.pattern}”", page)
        for probe in (kept, broken, long, slow, fresh)
    }
    assert [found and found[1] for found in rows.values()] == [
        "Kept",
        "Broken",
        "Too long",
        "Broken",
        "Not asked yet",
    ]
    assert "bot@1: 1 of 2; base: 0 of 2" in page
    assert "bot@1: 0 of 2; base: 2 of 2" in page
    assert page.count("The pattern took too long on an answer") == 1
    assert page.count("too long for the model") == 1
    assert f"Answer of bot@1: broken An answer of bot@1 to {broken.pk}." in page


def test_page_warns_where_the_rule_is_off(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    assert "The gate does not check probes" not in text_of(client)
    GateRules.objects.create(project=project, number=1, rules={"margins": {"kl": 0.5}})
    assert "The gate does not check probes" in text_of(client)
    GateRules.objects.create(project=project, number=2, rules={"margins": {"probes": 0.0}})
    assert "The gate does not check probes" not in text_of(client)


def test_list_has_pages_and_queries_do_not_grow(
    project: Project,
    admin: User,
    as_user: As,
    monkeypatch: pytest.MonkeyPatch,
    django_assert_max_num_queries: Any,
) -> None:
    monkeypatch.setattr(views, "PAGE_SIZE", 5)
    client = as_user(admin)
    for number in range(7):
        add(project, admin, f"<{number}>")
    with django_assert_max_num_queries(10):
        first = text_of(client)
    assert ("&lt;6&gt;" in first, "&lt;1&gt;" in first) == (True, False)
    assert "Page 1 of 2" in first
    assert "&lt;0&gt;" in text_of(client, "?page=2")


# -- from a decided answer


@pytest.fixture
def conversation(project: Project) -> Completion:
    """An answer to the second question of a conversation."""
    prompt = prompt_get_or_create(
        project=project,
        messages=[
            {"role": "user", "content": "Is it open?"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "Until when?"},
        ],
        source=Source.IMPORT,
    )
    answer = Answer("Until nine.", "base", "stop", None, None)
    return completion_create(project=project, prompt=prompt, answer=answer, source=Source.IMPORT)


def test_decided_down_leads_to_the_form_with_its_prompt_in_one_click(
    project: Project, admin: User, conversation: Completion, as_user: As
) -> None:
    adjudication_decide(completion=conversation, verdict=Verdict.DOWN, why="Wrong.", by=admin)
    client = as_user(admin)
    page = client.get(url("resolve"), {"show": "resolved"}).content.decode()
    link = re.search(r'href="([^"#]+)#add">[^\n]* Make a probe of it', page)
    assert link is not None
    opened = client.get(link[1]).content.decode()
    assert re.search(r"<textarea[^>]*>\s*Until when\?</textarea>", opened)
    assert f'name="completion" value="{conversation.pk}"' in opened
    assert "Until nine." in opened

    fields = {"prompt": "Until when, please?", "kind": "lacks", "pattern": "nine"}
    client.post(url("probes"), fields | {"completion": str(conversation.pk)})
    probe = project.probes.get()
    assert [message["content"] for message in probe.messages] == [
        "Is it open?",
        "Yes.",
        "Until when, please?",
    ]
    assert probe.completion == conversation


def test_decided_up_and_open_ones_have_no_such_button(
    project: Project,
    admin: User,
    make_completions: MakeCompletions,
    as_user: As,
) -> None:
    (completion,) = make_completions(1)
    adjudication_decide(completion=completion, verdict=Verdict.UP, why="Right.", by=admin)
    client = as_user(admin)
    for show in ("resolved", "contested", "asked"):
        page = client.get(url("resolve"), {"show": show}).content.decode()
        assert "Make a probe of it" not in page


def test_errors_keep_the_conversation(
    project: Project, admin: User, conversation: Completion, as_user: As
) -> None:
    fields = FIELDS | {"pattern": "", "completion": str(conversation.pk)}
    page = as_user(admin).post(url("probes"), fields).content.decode()
    assert f'name="completion" value="{conversation.pk}"' in page
    assert "The earlier messages of the conversation are part" in page


def test_answers_of_other_projects_cannot_be_used(
    project: Project, admin: User, outsider: User, conversation: Completion, as_user: As
) -> None:
    client = as_user(outsider)
    other = reverse("probes", args=["other"])
    assert client.get(other, {"completion": conversation.pk}).status_code == 404
    fields = FIELDS | {"completion": str(conversation.pk)}
    assert client.post(other, fields).status_code == 404
    assert client.get(other, {"completion": "x"}).status_code == 400
    assert not Probe.objects.exists()


@pytest.mark.parametrize("who", ["annotator", "viewer", "outsider"])
def test_others_can_neither_see_nor_change_probes(
    who: str, project: Project, admin: User, as_user: As, request: pytest.FixtureRequest
) -> None:
    client = as_user(request.getfixturevalue(who))
    probe = add(project, admin)
    refused = 404 if who == "outsider" else 403
    assert client.get(url("probes")).status_code == refused
    assert client.post(url("probes"), FIELDS).status_code == refused
    for name in ("probe-retire", "probe-restore"):
        assert client.post(url(name, probe.pk)).status_code == refused
    probe.refresh_from_db()
    assert (probe.retired_at, project.probes.count()) == (None, 1)
