"""The Train page and the page of a run."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.adjudication.selectors import asked
from feedback_app.feedback.models import Example, Project
from feedback_app.training.models import Adapter, Run, RunMetric, Schedule
from feedback_app.training.runs.advice import run_advice
from feedback_app.training.runs.claims import RunClaim, run_claim
from feedback_app.training.runs.config import RunConfig, form_values
from feedback_app.training.runs.fit import fit_of_run
from feedback_app.training.runs.services import run_finish, run_request
from feedback_app.training.runs.value_curve import point_of, value_curve
from tests.training.gate.reports import gate_report

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
HTMX = {"HX-Request": "true"}
FORM = form_values(RunConfig(epochs=1, batch_size=8, lora_r=8, seed=3))


def url(name: str, project: Project, *args: Any) -> str:
    return reverse(name, args=[project.slug, *args])


@pytest.fixture
def run(voted_project: Project, admin: User) -> Run:
    return run_request(project=voted_project, by=admin)


@pytest.fixture
def claim(run: Run) -> RunClaim:
    claim = run_claim(run.pk)
    assert claim is not None
    return claim


def metric(run: Run, step: int, **changed: float) -> RunMetric:
    values: dict[str, float] = {
        "loss": 0.5,
        "kl": 0.0,
        "kl_unclamped": -0.1,
        "reward_desirable": 0.4,
        "reward_undesirable": -0.6,
        "completion_tokens": 60,
        "learning_rate": 2e-4,
        "grad_norm": 1.0,
        "seconds": 6.5,
    } | changed
    return RunMetric(run=run, step=step, **values)


@pytest.fixture
def adapter(claim: RunClaim) -> Adapter:
    """A finished run whose adapter won the gate, with one doubtful label."""
    name = claim.row.project.adapter_name(claim.row.number)
    RunMetric.objects.bulk_create([metric(claim.row, step) for step in range(1, 9)])
    report = gate_report(name)
    report["answers"][0]["messages"] = [{"role": "user", "content": "Why is the sky blue?"}]
    for version, text, up in (
        (name, "<i>Air</i> scatters **blue**.", 0.95),
        ("base", "Because", 0.05),
    ):
        for answer in report["answers"][0]["answers"][version]:
            answer |= {"text": text, "up": up}
    items = list(claim.row.snapshot.items.filter(split="train").order_by("pk"))
    fit = {item.completion_id: (2.0 if item.desirable else -3.0, 0.1) for item in items}
    liked = next(item for item in items if item.desirable)
    fit[liked.completion_id] = (-4.0, 0.1)
    finished = run_finish(
        claim=claim,
        path=f"adapters/{name}",
        sha256="0" * 64,
        report=report,
        fit=fit,
    )
    assert finished is not None
    return finished


# -- the Train page


def test_runs_empty_project_shows_why_it_cannot_train(
    project: Project, admin: User, as_user: As
) -> None:
    page = as_user(admin).get(url("runs", project)).content.decode()

    assert "0 up and 0 down" in page
    assert "No run yet" in page
    assert "disabled" in page


def test_runs_shows_what_a_run_would_train_on(
    voted_project: Project, admin: User, as_user: As
) -> None:
    page = as_user(admin).get(url("runs", voted_project)).content.decode()

    counts = voted_project.examples.counts()
    assert f"<dd>{counts['train_up']}</dd>" in page
    assert f"<dd>{counts['train_down']}</dd>" in page
    assert "<dt>Validation</dt><dd>5 <small>1 up</small></dd>" in page
    assert "<dt>Test</dt><dd>12 <small>4 up</small></dd>" in page
    assert "5 validation examples: eight" in page
    assert "disabled" not in page
    more = list(voted_project.examples.filter(split="train").values_list("pk", flat=True)[:3])
    Example.objects.filter(pk__in=more).update(split="validation")
    page = as_user(admin).get(url("runs", voted_project)).content.decode()
    assert "<dt>Validation</dt><dd>8 <small>" in page
    assert "validation examples: eight" not in page


def test_plan_follows_the_form(voted_project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)

    small = client.get(url("run-plan", voted_project), FORM, headers=HTMX).content.decode()
    large = client.get(
        url("run-plan", voted_project), FORM | {"batch_size": "200"}, headers=HTMX
    ).content.decode()

    assert "disabled" not in small
    assert "fewer than one batch of 200" in large
    assert "disabled" in large
    assert "<html" not in large


@pytest.mark.parametrize("change", [{"epochs": "0"}, {"beta": "x"}, {"colour": "red"}])
def test_plan_invalid_values_are_refused(
    change: dict[str, str], voted_project: Project, admin: User, as_user: As
) -> None:
    answer = as_user(admin).get(url("run-plan", voted_project), FORM | change)

    assert answer.status_code == 400


def test_plan_names_invalid_values_and_turns_the_button_off(
    voted_project: Project, admin: User, as_user: As
) -> None:
    wrong = FORM | {"epochs": "0", "batch_size": "", "learning_rate": "7"}
    answer = as_user(admin).get(url("run-plan", voted_project), wrong, headers=HTMX)

    assert answer.status_code == 200
    page = answer.content.decode()
    assert "Epochs: Choose 1 to 20." in page
    assert "Batch: This field is required." in page
    assert "Learning rate: Choose 1e-07 to 0.01." in page
    assert "disabled" in page


def test_train_now_keeps_what_was_typed(run: Run, admin: User, as_user: As) -> None:
    for change, error in (
        ({"epochs": "0"}, "Choose 1 to 20."),
        ({}, "Run 1 is in progress: wait for it or cancel it."),
    ):
        answer = as_user(admin).post(
            url("run-request", run.project), FORM | {"seed": "77", "auto_release": "on"} | change
        )
        assert answer.status_code == 400
        page = answer.content.decode()
        assert error in page
        assert '<details class="fold" open>' in page
        assert 'name="seed" value="77"' in page
        assert answer.context["form"]["auto_release"].value() is True
    assert Run.objects.count() == 1


def test_train_now_queues_a_run_with_the_settings(
    voted_project: Project, admin: User, as_user: As
) -> None:
    answer = as_user(admin).post(url("run-request", voted_project), FORM | {"auto_release": "on"})

    run = Run.objects.get()
    assert answer["Location"] == url("run", voted_project, run.number)
    assert (run.config["batch_size"], run.config["seed"], run.auto_release) == (8, 3, True)
    assert run.requested_by == admin


def test_train_now_while_a_run_is_active_shows_an_error(
    run: Run, voted_project: Project, admin: User, as_user: As
) -> None:
    answer = as_user(admin).post(url("run-request", voted_project), FORM, follow=True)

    assert b"Run 1 is in progress" in answer.content
    assert Run.objects.count() == 1


@pytest.mark.slow
def test_train_now_unknown_field_is_refused(
    voted_project: Project, admin: User, as_user: As
) -> None:
    answer = as_user(admin).post(url("run-request", voted_project), FORM | {"status": "succeeded"})

    assert answer.status_code == 400
    assert not Run.objects.exists()


@pytest.mark.slow
def test_runs_queries_do_not_grow_with_runs(
    voted_project: Project, admin: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    snapshot = run_request(project=voted_project, by=admin).snapshot
    Run.objects.update(status=Run.Status.CANCELLED)
    for number in range(2, 30):
        Run.objects.create(
            project=voted_project,
            number=number,
            snapshot=snapshot,
            trigger=Run.Trigger.PERSON,
            requested_by=admin,
            status=Run.Status.FAILED,
        )
    client = as_user(admin)
    client.get(url("runs", voted_project))  # asks a worker for the content of the snapshot

    with django_assert_max_num_queries(23):
        page = client.get(url("runs", voted_project)).content.decode()

    assert "Page 1 of 2" in page


def test_schedule_is_saved(project: Project, admin: User, as_user: As) -> None:
    body = {"enabled": "on", "min_new_examples": "20", "min_hours": "0.5", "auto_release": "on"}

    answer = as_user(admin).post(url("schedule", project), body, follow=True)

    schedule = Schedule.objects.get()
    assert (schedule.enabled, schedule.min_new_examples, schedule.min_hours) == (True, 20, 0.5)
    assert b"Runs now start automatically." in answer.content
    assert b'value="0.5"' in answer.content


def test_schedule_invalid_values_are_refused(project: Project, admin: User, as_user: As) -> None:
    body = {"enabled": "on", "min_new_examples": "0", "min_hours": "-1"}

    answer = as_user(admin).post(url("schedule", project), body)

    assert answer.status_code == 400
    page = answer.content.decode()
    assert "New examples: Ensure this value is greater than or equal to 1." in page
    assert 'name="min_hours" value="-1"' in page
    assert "Train now" in page
    assert not Schedule.objects.exists()


def test_schedule_saved_meanwhile_is_not_overwritten(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    seen = client.get(url("runs", project)).context["schedule_form"]["seen"].value()
    body = {"seen": seen, "enabled": "on", "min_new_examples": "50", "min_hours": "24"}
    client.post(url("schedule", project), body | {"min_hours": "6"})

    answer = client.post(url("schedule", project), body | {"min_hours": "12"})

    assert answer.status_code == 409
    assert "Hours between runs: Saved meanwhile: 6" in answer.content.decode()
    assert Schedule.objects.get().min_hours == 6


# -- one run


@pytest.mark.slow
def test_run_of_another_project_is_404(run: Run, outsider: User, admin: User, as_user: As) -> None:
    other = Project.objects.get(slug="other")

    for name in ("run", "run-live", "run-metrics"):
        assert as_user(outsider).get(url(name, run.project, run.number)).status_code == 404
        assert as_user(outsider).get(url(name, other, run.number)).status_code == 404
    for name in ("run-cancel", "run-resume"):
        assert as_user(outsider).post(url(name, other, run.number)).status_code == 404
    run.refresh_from_db()
    assert run.status == Run.Status.QUEUED


def test_run_queued_polls_and_shows_what_it_waits_for(run: Run, admin: User, as_user: As) -> None:
    page = as_user(admin).get(url("run", run.project, 1)).content.decode()

    assert "Waiting for a GPU worker" in page
    assert 'hx-trigger="every 2s"' in page


@pytest.mark.slow
def test_run_polling_ends_with_the_run(claim: RunClaim, admin: User, as_user: As) -> None:
    client = as_user(admin)
    claim.heartbeat(phase="training", progress_done=3, progress_total=12, eta_seconds=100)

    working = client.get(url("run-live", claim.row.project, 1), headers=HTMX)
    claim.update(status=Run.Status.FAILED, error="Loss is NaN at step 3: lower the rate.")
    ended = client.get(url("run-live", claim.row.project, 1), headers=HTMX)

    assert working.status_code == 200
    assert b"3 of 12" in working.content
    assert b"about 2 minutes of training left" in working.content
    assert ended.status_code == 286
    assert b"Loss is NaN at step 3" in ended.content


@pytest.mark.slow
def test_run_metrics_return_only_new_points(run: Run, admin: User, as_user: As) -> None:
    RunMetric.objects.bulk_create([metric(run, step, loss=0.5 - step / 100) for step in (1, 2, 3)])
    client = as_user(admin)

    data = client.get(url("run-metrics", run.project, 1), {"after": "1"}).json()
    nothing = client.get(url("run-metrics", run.project, 1), {"after": "3"}).json()

    assert data["steps"] == [2, 3]
    assert data["loss"] == pytest.approx([0.48, 0.47])
    assert data["after"] == 3
    assert data["active"] is True
    assert (nothing["steps"], nothing["loss"], nothing["after"]) == ([], [], 3)


def test_train_page_takes_the_settings_of_an_earlier_run(
    run: Run, admin: User, as_user: As
) -> None:
    Run.objects.update(config=run.config | {"learning_rate": 0.005, "epochs": 3})
    page = as_user(admin).get(url("runs", run.project), {"like": "1"})
    assert page.context["form"]["learning_rate"].value() == 0.005
    assert page.context["plan"].steps == 3 * math.ceil(page.context["plan"].train_total / 16)
    assert "those of run 1" in page.content.decode()
    for wrong, status in (("7", 404), ("x", 400)):
        assert as_user(admin).get(url("runs", run.project), {"like": wrong}).status_code == status


@pytest.mark.slow
def test_run_cancel_and_resume(run: Run, admin: User, as_user: As) -> None:
    client = as_user(admin)

    client.post(url("run-cancel", run.project, 1))
    run.refresh_from_db()
    assert run.status == Run.Status.CANCELLED
    again = client.post(url("run-cancel", run.project, 1), follow=True)
    assert b"already ended" in again.content
    client.post(url("run-resume", run.project, 1))
    run.refresh_from_db()
    assert run.status == Run.Status.QUEUED


@pytest.mark.slow
def test_run_done_shows_gate_answers_and_doubtful_labels(
    adapter: Adapter, admin: User, as_user: As
) -> None:
    page = as_user(admin).get(url("run", adapter.project, 1)).content.decode()

    assert "passed the gate" in page
    text = " ".join(page.split())
    assert "Predicted up-rate" in text
    assert "The share of answers that end by themselves falls by less than 10 points" in text
    assert "Answers that got better" in text
    assert "+90 points" in text
    assert "Why is the sky blue?" in page
    assert "&lt;i&gt;Air&lt;/i&gt;" in page
    assert "<strong>blue</strong>" in page
    assert "cut at the limit" in page
    assert "Examples that fit worst" in page
    assert f"Release {adapter.name}" in page


@pytest.mark.parametrize("outcome", ["passed", "failed", "undecided"])
def test_discarded_version_offers_no_release(
    adapter: Adapter, admin: User, as_user: As, outcome: str
) -> None:
    Adapter.objects.update(
        gate_outcome=outcome, gate_won=outcome == "passed", discarded_at=timezone.now()
    )
    page = " ".join(as_user(admin).get(url("run", adapter.project, 1)).content.decode().split())
    assert "It is discarded: restore it" in page
    assert f"Restore {adapter.name}" in page
    for offer in ("You can", f"Release {adapter.name}", "Try it in the demo"):
        assert offer not in page


@pytest.mark.slow
def test_misfit_is_sent_back_and_withdrawn_with_one_click(
    adapter: Adapter, admin: User, as_user: As
) -> None:
    project = adapter.project
    client = as_user(admin)
    misfit = adapter.run.snapshot.items.filter(reward__isnull=False).first()
    assert misfit is not None
    send = url("misfit-send-back", project, 1, misfit.completion_id)

    page = client.post(send, follow=True).content.decode()
    assert "Sent back</a>" in page
    assert asked(project).get().pk == misfit.completion_id
    assert "It fits badly in run 1" in client.get(url("resolve", project)).content.decode()
    client.post(send, {"take_back": "on"})
    assert not asked(project).exists()
    assert client.post(url("misfit-send-back", project, 1, 99_999)).status_code == 404


@pytest.mark.slow
def test_run_done_queries_do_not_grow(
    adapter: Adapter, admin: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    client = as_user(admin)

    with django_assert_max_num_queries(12):
        client.get(url("run", adapter.project, 1))


@pytest.mark.slow
def test_adapter_discard_and_restore(adapter: Adapter, admin: User, as_user: As) -> None:
    client = as_user(admin)

    page = client.post(url("adapter-discard", adapter.project, adapter.name), follow=True)
    adapter.refresh_from_db()
    assert adapter.discarded_at is not None
    assert b"Restore" in page.content
    client.post(url("adapter-restore", adapter.project, adapter.name))
    adapter.refresh_from_db()
    assert adapter.discarded_at is None


@pytest.mark.slow
def test_adapter_of_another_project_is_404(adapter: Adapter, outsider: User, as_user: As) -> None:
    other = Project.objects.get(slug="other")

    for name in ("adapter-discard", "adapter-restore"):
        answer = as_user(outsider).post(url(name, other, adapter.name))
        assert answer.status_code == 404


# -- advice and the value curve


def test_advice_collapse_is_named(run: Run) -> None:
    metrics = [
        metric(run, step, kl_unclamped=-4.0, reward_desirable=-3.0, reward_undesirable=-6.0)
        for step in range(1, 9)
    ]

    titles = [advice.title for advice in run_advice(metrics, kl_brake=0.5)]

    assert titles == ["Both rewards are falling.", "The reference point sits at its clamp."]


def test_advice_healthy_run_has_none(run: Run) -> None:
    assert run_advice([metric(run, step) for step in range(1, 40)], kl_brake=0.5) == []


def test_advice_far_from_base_uses_nats_per_token(run: Run) -> None:
    near = [metric(run, step, kl=20.0, completion_tokens=60) for step in range(1, 9)]
    far = [metric(run, step, kl=40.0, completion_tokens=60) for step in range(1, 9)]

    assert run_advice(near, kl_brake=0.5) == []
    assert "far from its base" in run_advice(far, kl_brake=0.5)[0].title


def test_value_curve_places_examples_on_their_branch(adapter: Adapter) -> None:
    curve = value_curve(adapter.run, fit_of_run(adapter.run))

    assert curve is not None
    # all on the side of their label, except the one doubtful label
    assert curve.well_placed == curve.total - 1
    liked = [point for point in curve.points if point.desirable]
    assert sum(point.x > curve.width / 2 for point in liked) == len(liked) - 1
    assert all(0 <= point.y <= curve.height for point in curve.points)


def test_value_curve_marks_where_all_examples_were_before_training(
    adapter: Adapter, admin: User, as_user: As
) -> None:
    start = point_of(0.0, True, beta=0.1)
    assert start == replace(point_of(0.0, False, beta=0.1), desirable=True)

    for name in ("run", "run-examples"):
        url = reverse(name, args=[adapter.project.slug, adapter.run.number])
        page = as_user(admin).get(url).content.decode()
        assert f'<circle class="before" cx="{start.x:g}" cy="{start.y:g}"' in page
        assert "before training, when every reward is 0" in page
