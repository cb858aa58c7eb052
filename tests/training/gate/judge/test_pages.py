"""The judge model on the page of a gate's rules: saved, tried, removed, and its key never shown."""

import json
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.accounts.sealing import unseal
from feedback_app.feedback.models import Project
from feedback_app.training.gate.judge.services import TRIES_A_MINUTE
from feedback_app.training.gate.services import gate_settings
from feedback_app.training.models import Judge
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.services import run_finish, run_request
from tests.training.gate.judge.server import JudgeServer, Reply, kind
from tests.training.gate.reports import gate_report
from tests.training.gate.test_pages import form_values

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

As = Callable[[User], Client]
KEY = "sk-very-secret"


def url(name: str, project: Project) -> str:
    return reverse(name, args=[project.slug])


@pytest.fixture
def client(admin: User, as_user: As) -> Client:
    return as_user(admin)


@pytest.fixture
def saved(project: Project, client: Client, server: JudgeServer) -> Judge:
    values = {"url": server.url, "model": "judge-1", "api_key": KEY}
    assert client.post(url("gate-judge", project), values).status_code == 302
    return Judge.objects.get(project=project)


def test_key_is_stored_encrypted_and_never_shown(
    saved: Judge, project: Project, client: Client, admin: User, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unseal(saved.api_key) == KEY
    assert KEY not in saved.api_key
    seen = [client.get(url("gate-rules", project)).content.decode()]
    assert 'value="judge-1"' in seen[0]
    assert "One is stored and never shown" in seen[0]
    # a form that is shown again with errors
    again = {"url": "ftp://x", "model": "judge-1", "api_key": KEY}
    seen.append(client.post(url("gate-judge", project), again).content.decode())
    seen += [client.post(url("gate-judge-test", project)).content.decode()]
    export = client.get(reverse("me-export"))
    seen.append(b"".join(export).decode())  # type: ignore[arg-type]
    assert '"judges"' in seen[-1]
    assert '"judge-1"' in seen[-1]
    seen += [str(list(AuditEvent.objects.values())), *capsys.readouterr()]
    assert [text for text in seen if KEY in text or saved.api_key in text] == []


def test_saving_is_in_the_audit_trail(saved: Judge, admin: User) -> None:
    event = AuditEvent.objects.get(action="gate.judge")
    assert (event.actor, event.target) == (admin, f"judge-1 at {saved.url}")
    assert saved.saved_by == admin


def test_empty_key_keeps_the_stored_one(saved: Judge, project: Project, client: Client) -> None:
    values = {"url": saved.url, "model": "judge-2", "api_key": ""}
    client.post(url("gate-judge", project), values)
    saved.refresh_from_db()
    assert (saved.model, unseal(saved.api_key)) == ("judge-2", KEY)


def test_stored_key_goes_to_no_other_url(saved: Judge, project: Project, client: Client) -> None:
    """Who may change the URL need not know the key."""
    before = saved.url
    values = {"url": before.replace("/v1", "/v2"), "model": "judge-1", "api_key": ""}
    response = client.post(url("gate-judge", project), values)
    assert response.status_code == 400
    assert "The stored API key is for the old URL" in response.content.decode()
    saved.refresh_from_db()
    assert saved.url == before
    client.post(url("gate-judge", project), values | {"api_key": "sk-other"})
    saved.refresh_from_db()
    assert unseal(saved.api_key) == "sk-other"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("url", "http://10.0.0.7/v1", "must point to a public address"),
        ("url", "http://169.254.169.254/v1", "must point to a public address"),
        ("url", "judge", "must start with"),
        ("url", "", "required"),
        ("model", "", "required"),
        ("api_key", "two words", "no spaces"),
        ("api_key", "schlüssel", "ASCII"),
        ("surprise", "1", "Unknown fields"),
    ],
)
def test_impossible_judges_are_refused(
    project: Project, client: Client, server: JudgeServer, name: str, value: str, why: str
) -> None:
    values = {"url": server.url, "model": "judge-1", "api_key": ""} | {name: value}
    response = client.post(url("gate-judge", project), values)
    assert response.status_code == 400
    assert why in response.content.decode()
    assert not Judge.objects.exists()


def test_trial_shows_the_answer(
    saved: Judge, project: Project, client: Client, server: JudgeServer
) -> None:
    page = client.post(url("gate-judge-test", project)).content.decode()
    assert "It chose the right one of two answers." in page
    assert "{&quot;preferred&quot;: &quot;A&quot;}" in page
    [asked] = server.asked
    assert asked.compared["conversation"][0]["content"] == "What is the capital of France?"
    server.behaviour = kind  # neither answer contains its word
    page = client.post(url("gate-judge-test", project)).content.decode()
    assert "did not choose the" in page


def test_trials_are_limited(
    saved: Judge, project: Project, client: Client, server: JudgeServer
) -> None:
    for _ in range(TRIES_A_MINUTE):
        assert client.post(url("gate-judge-test", project)).status_code == 200
    refused = client.post(url("gate-judge-test", project))
    assert refused.status_code == 429
    assert "within a minute" in refused.content.decode()
    assert len(server.asked) == TRIES_A_MINUTE


def test_trial_shows_an_answer_that_would_not_count(
    saved: Judge, project: Project, client: Client, server: JudgeServer
) -> None:
    server.behaviour = lambda asked: Reply("<script>Paris!</script>")
    page = client.post(url("gate-judge-test", project)).content.decode()
    assert "Its answer does not count" in page
    assert "&lt;script&gt;Paris!&lt;/script&gt;" in page


def test_trial_shows_the_error(
    saved: Judge, project: Project, client: Client, server: JudgeServer, settings: Settings
) -> None:
    raw = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}."}})
    server.behaviour = lambda asked: Reply(status=401, raw=raw)
    page = client.post(url("gate-judge-test", project)).content.decode()
    assert "The server answered 401: Incorrect API key provided: [API key]." in page
    assert KEY not in page
    settings.JUDGE_NETWORKS = []
    page = client.post(url("gate-judge-test", project)).content.decode()
    assert "must point to a public address" in page
    assert len(server.asked) == 1


def test_removing_deletes_the_key(saved: Judge, project: Project, client: Client) -> None:
    client.post(url("gate-judge-remove", project))
    assert not Judge.objects.exists()
    assert AuditEvent.objects.filter(action="gate.judge_remove").count() == 1
    client.post(url("gate-judge-remove", project))  # a double click
    assert AuditEvent.objects.filter(action="gate.judge_remove").count() == 1
    assert client.post(url("gate-judge-test", project)).status_code == 400


def test_rule_needs_a_judge(project: Project, client: Client, server: JudgeServer) -> None:
    values = form_values() | {"primary": "judge", "minimum_kappa": "0.4", "judge_minutes": "3"}
    response = client.post(url("gate-rules", project), values)
    assert response.status_code == 400
    assert "Set up a judge model first" in response.content.decode()
    client.post(url("gate-judge", project), {"url": server.url, "model": "m", "api_key": ""})
    assert client.post(url("gate-rules", project), values).status_code == 302
    found = gate_settings(project)
    assert (found.primary, found.minimum_kappa, found.judge_minutes) == ("judge", 0.4, 3)


@pytest.mark.parametrize("name", ["gate-judge", "gate-judge-test", "gate-judge-remove"])
def test_annotators_may_not(
    saved: Judge, project: Project, annotator: User, as_user: As, server: JudgeServer, name: str
) -> None:
    values = {"url": server.url, "model": "other", "api_key": "x"}
    assert as_user(annotator).post(url(name, project), values).status_code == 403
    assert server.asked == []
    assert Judge.objects.get().model == "judge-1"


JUDGED = {
    "model": "judge-1",
    "kappa": 0.5512,
    "kappa_low": 0.3101,
    "kappa_high": 0.7,
    "pairs": 58,
    "prompts": {f"p{n}": 1.0 for n in range(30)},
    "failures": 2,
    "late": False,
    "error": "",
}


def run_page(project: Project, by: User, client: Client, judged: dict[str, object] | None) -> str:
    run = run_request(project=project, by=by)
    claim = run_claim(run.pk)
    assert claim is not None
    report = gate_report(project.adapter_name(run.number))
    if judged is not None:
        report["judge"] = judged
    assert run_finish(claim=claim, path="p", sha256="0", report=report, fit={}) is not None
    page = client.get(reverse("run", args=[project.slug, run.number])).content.decode()
    return " ".join(page.split())


def test_run_page_shows_kappa_and_its_pairs(
    saved: Judge, voted_project: Project, admin: User, client: Client
) -> None:
    client.post(url("gate-rules", voted_project), form_values() | {"primary": "judge"})
    page = run_page(voted_project, admin, client, JUDGED)
    assert (
        "Judge model judge-1: Cohen’s κ with people’s votes 0.55 (95 % interval 0.31 to 0.70), "
        "measured on 58 pairs of a liked and a disliked answer" in page
    )
    assert "compared the answers to 30 test prompts, and gave no valid answer on 2." in page
    assert "better than the base: preferred to the base on 100% of 30 prompts" in page
    assert "100 %" in page


def test_run_page_of_a_judge_that_failed(
    saved: Judge, voted_project: Project, admin: User, client: Client
) -> None:
    client.post(url("gate-rules", voted_project), form_values() | {"primary": "judge"})
    failed = {
        **JUDGED,
        **dict.fromkeys(("kappa", "kappa_low", "kappa_high")),
        "prompts": {},
        "pairs": 0,
        "error": "The server answered 503",
    }
    page = run_page(voted_project, admin, client, failed)
    assert "the judge model gave no verdict: The server answered 503" in page
    assert "its agreement with people could not be measured" in page


def test_run_page_without_a_judge_says_nothing(
    voted_project: Project, admin: User, client: Client
) -> None:
    assert "Judge model" not in run_page(voted_project, admin, client, None)
