"""A sweep: its trials, their order, stopping early, choosing one, cancelling, and its pages."""

import datetime as dt
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import (
    Notification,
    NotificationKind,
    Project,
    Split,
    WebhookDelivery,
)
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.webhooks.services import webhook_create
from feedback_app.training import tasks
from feedback_app.training.forgetting.snapshots import failed_run_files_remove
from feedback_app.training.launchers.base import CANCELLED
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.models import Adapter, Run, Sweep
from feedback_app.training.runs import waiting
from feedback_app.training.runs.claims import RunClaim, run_claim
from feedback_app.training.runs.config import RunConfig, chat_settings, form_values
from feedback_app.training.runs.events import events_store
from feedback_app.training.runs.execution import jobs
from feedback_app.training.runs.execution.jobs import JobEnd
from feedback_app.training.runs.execution.outcomes import settle
from feedback_app.training.runs.execution.sequence import run_execute
from feedback_app.training.runs.limits import run_limit
from feedback_app.training.runs.services import run_cancel, run_request, run_requeue
from feedback_app.training.runs.waiting import run_claim_next, trials_held, waiting_runs
from feedback_app.training.schedules.services import schedule_set, schedules_run
from feedback_app.training.sweeps.hours import hours_spent
from feedback_app.training.sweeps.probes import MOST_PROBES, probes_of, probes_with
from feedback_app.training.sweeps.selectors import best_of, trials_shown, trials_sorted
from feedback_app.training.sweeps.services import (
    Search,
    sweep_cancel,
    sweep_request,
    sweeps_advance,
    trial_choose,
)
from feedback_app.training.sweeps.stopping import stop_reason, trial_trained
from feedback_app.web.errors import UserError

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
RATES = (1e-5, 5e-5, 2e-4, 5e-4)
BASE = RunConfig(epochs=1, batch_size=8, kl_brake=10)


@pytest.fixture
def wide(project: Project) -> Project:
    """A project with enough validation prompts among sixty to compare trials by."""
    project.validation_percent, project.max_tokens = 30, 8
    project.save()
    return project


@pytest.fixture
def sweep(
    wide: Project, voted_project: Project, admin: User, settings: Settings, tmp_path: Path
) -> Sweep:
    settings.ARTIFACT_ROOT, settings.MODELS_ROOT = tmp_path / "artifacts", tmp_path / "models"
    search = Search({"learning_rate": RATES})
    return sweep_request(project=voted_project, by=admin, base=BASE, search=search)


def trials_of(sweep: Sweep) -> list[Run]:
    return list(sweep.trials.order_by("number"))


def trained(run: Run, losses: Sequence[float], *, status: str = "trained", steps: int = 10) -> None:
    """Make a trial that measured these validation losses at equal distances of its steps."""
    apart = steps // len(losses)
    now = timezone.now()
    Run.objects.filter(pk=run.pk).update(
        status=status,
        facts={"total_steps": steps},
        probes=[[apart * (at + 1), loss, 0.5] for at, loss in enumerate(losses)],
        started_at=now - dt.timedelta(minutes=30),
        heartbeat_at=now,
        finished_at=now,
    )


def claimed(run: Run) -> RunClaim:
    claim = run_claim(run.pk)
    assert claim is not None
    return claim


# -- the request


def test_trials_are_runs_on_one_snapshot(sweep: Sweep) -> None:
    trials = trials_of(sweep)
    assert [run.config["learning_rate"] for run in trials] == list(RATES)
    assert [run.number for run in trials] == [1, 2, 3, 4]
    assert {run.snapshot_id for run in trials} == {sweep.snapshot_id}
    for run in trials:
        assert run.config.items() >= chat_settings(sweep.project).items()
    assert {(run.status, run.evaluates, run.auto_release) for run in trials} == {
        (Run.Status.QUEUED, False, False)
    }
    assert AuditEvent.objects.get(action="sweep.request").target == "Sweep 1: 4 trials"
    assert sweep.forecast["minutes"] > 4
    assert sweep.forecast["cost"] is None


def test_what_cannot_be_compared_is_refused_before_anything_is_stored(
    wide: Project, voted_project: Project, admin: User, settings: Settings
) -> None:
    def refused(space: dict[str, Any], base: RunConfig = BASE, **how: Any) -> str:
        with pytest.raises(UserError) as why:
            search = Search(space, **how)
            sweep_request(project=voted_project, by=admin, base=base, search=search)
        return str(why.value)

    assert "fewer than one batch of 256" in refused({"batch_size": (8, 256)})
    assert "more than the 0.1 that this sweep may take" in refused(
        {"epochs": (10, 20)}, max_hours=0.1
    )
    settings.RUN_MAX_HOURS = 0.01
    assert "The longest trial takes about" in refused({"epochs": (1, 2)})
    settings.RUN_MAX_HOURS = 0.0
    assert "Worker hours: choose" in refused({"epochs": (1, 2)}, max_hours=float("nan"))
    live = RunConfig(start_from="live", batch_size=8)
    assert "no version is live" in refused({"epochs": (1, 2)}, base=live)
    voted_project.examples.filter(split=Split.VALIDATION).delete()
    assert "a sweep compares its trials by them" in refused({"epochs": (1, 2)})
    assert (Sweep.objects.count(), Run.objects.count()) == (0, 0)
    assert voted_project.snapshots.count() == 0


def test_cost_is_forecast_where_an_hour_has_a_price(
    wide: Project, voted_project: Project, admin: User, settings: Settings
) -> None:
    settings.WORKER_HOUR_PRICE = 3.0
    search = Search({"epochs": (1, 2)})
    found = sweep_request(project=voted_project, by=admin, base=BASE, search=search)
    assert found.forecast["cost"] == pytest.approx(found.forecast["minutes"] / 20, abs=0.01)


def test_project_has_one_sweep_at_a_time(sweep: Sweep, admin: User) -> None:
    search = Search({"epochs": (1, 2)})
    with pytest.raises(UserError, match="Sweep 1 is in progress"):
        sweep_request(project=sweep.project, by=admin, base=BASE, search=search)
    sweep_cancel(sweep=sweep, by=admin)
    assert sweep_request(project=sweep.project, by=admin, base=BASE, search=search).number == 2


# -- beside other runs


def test_ordinary_run_of_the_project_goes_before_waiting_trials(sweep: Sweep, admin: User) -> None:
    run = run_request(project=sweep.project, by=admin, config=BASE)
    assert [found.number for found in waiting_runs()] == [5, 1, 2, 3, 4]
    assert run_claim_next() is not None
    # the trials do not wait for its end
    claim = run_claim_next()
    assert claim is not None
    assert claim.row.number == 1
    with pytest.raises(UserError, match=f"Run {run.number} is in progress"):
        run_request(project=sweep.project, by=admin, config=BASE)


def test_schedule_does_not_wait_for_a_sweep(sweep: Sweep, admin: User) -> None:
    schedule_set(
        project=sweep.project,
        by=admin,
        enabled=True,
        min_new_examples=1,
        min_hours=0,
        auto_release=False,
    )
    (run,) = schedules_run()
    assert run.trigger == Run.Trigger.SCHEDULE


def test_trials_wait_for_the_runs_of_all_projects(sweep: Sweep, admin: User) -> None:
    other = project_create(slug="other", name="Other", base_model="tiny", owner=admin)
    busy = Run.objects.create(project=other, number=1, snapshot=sweep.snapshot, trigger="person")
    # another project has had more worker time, and its trials would wait: its own run does not
    past = Run.objects.create(
        project=other, number=2, snapshot=busy.snapshot, trigger="person", status="failed"
    )
    trained(past, [0.5], status="failed")
    assert [run.pk for run in waiting_runs()] == [busy.pk, *(run.pk for run in trials_of(sweep))]


def test_sweep_has_as_many_trials_in_progress_as_it_was_started_with(sweep: Sweep) -> None:
    first = run_claim_next()
    assert first is not None
    assert run_claim_next() is None
    assert trials_held() == {run.pk for run in trials_of(sweep)[1:]}
    Sweep.objects.update(at_once=2)
    second = run_claim_next()
    assert second is not None
    assert run_claim_next() is None
    trial_trained(first)
    third = run_claim_next()
    assert third is not None
    assert [claim.row.number for claim in (first, second, third)] == [1, 2, 3]


def test_two_workers_that_ask_at_once_take_one_trial(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other worker claims between this one's look at the places and its claim."""
    orders = waiting.waiting_runs

    def beaten() -> list[Run]:
        found = orders()
        claimed(found[0])
        return found

    monkeypatch.setattr(waiting, "waiting_runs", beaten)
    assert run_claim_next() is None
    assert Run.objects.filter(status=Run.Status.RUNNING).count() == 1


def test_message_about_a_trial_is_sent_when_its_sweep_has_a_place(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(tasks.train_run, "apply_async", lambda args, **how: sent.append(args[0]))
    one, two, *_ = trials_of(sweep)
    tasks.dispatch()
    tasks.dispatch()
    assert sent == [one.pk]
    trial_trained(claimed(one))
    tasks.dispatch()
    assert sent == [one.pk, two.pk]


def test_trial_of_a_killed_worker_is_taken_by_another_one(sweep: Sweep) -> None:
    Sweep.objects.update(at_once=4)
    first = claimed(trials_of(sweep)[0])
    events_store(first, [{"type": "probe", "step": 2, "validation_loss": 0.7} | PROBE])
    # after `kill -9` nothing renews the claim
    long_ago = timezone.now() - dt.timedelta(days=1)
    Run.objects.filter(pk=first.row.pk).update(heartbeat_at=long_ago)

    taken = [run_claim_next() for _ in range(4)]

    assert sorted(claim.row.number for claim in taken if claim) == [1, 2, 3, 4]
    again = next(claim for claim in taken if claim and claim.row.number == 1)
    assert again.attempt == 2
    assert [probe.step for probe in probes_of(again.row)] == [2]
    assert not first.heartbeat()
    # and its steps after the checkpoint are measured once more
    events_store(again, [{"type": "probe", "step": 2, "validation_loss": 0.6} | PROBE])
    again.row.refresh_from_db()
    assert [tuple(probe) for probe in probes_of(again.row)] == [(2, 0.6, 0.9)]


PROBE = {"validation_ranking": 0.9, "kl_per_token": 0.0, "answers": 4}


def test_many_probes_are_thinned_and_the_best_one_stays() -> None:
    stored: list[list[Any]] = []
    for step in range(1, 3 * MOST_PROBES):
        loss = 0.1 if step == 7 else 1.0
        stored = probes_with(stored, {"step": step, "validation_loss": loss})
    assert MOST_PROBES / 4 < len(stored) <= MOST_PROBES
    assert [7, 0.1, None] in stored
    assert stored[-1][0] == 3 * MOST_PROBES - 1


# -- stopping early


def test_trial_that_is_worse_than_the_median_at_its_share_is_stopped(sweep: Sweep) -> None:
    *earlier, last = trials_of(sweep)
    for run, losses in zip(
        earlier, ([0.6, 0.5, 0.4], [0.7, 0.6, 0.5], [0.65, 0.64, 0.3]), strict=True
    ):
        trained(run, losses, steps=9)
    # other numbers of steps: the share counts
    trained(last, [0.66], status="running", steps=18)
    Run.objects.filter(pk=last.pk).update(facts={"total_steps": 54})
    assert stop_reason(last.pk) == (
        "Stopped early after 33 % of its steps: its best validation loss, 0.660, is worse than the "
        "median of 3 earlier trials there, 0.650."
    )
    Run.objects.filter(pk=last.pk).update(probes=[[18, 0.65, 0.5]])
    assert stop_reason(last.pk) == ""


def test_trial_is_not_stopped_at_first_at_its_end_or_after_too_few_others(sweep: Sweep) -> None:
    one, two, three, last = trials_of(sweep)
    trained(one, [0.1, 0.1])
    trained(two, [0.1, 0.1])
    trained(last, [0.9, 0.9], status="running", steps=10)
    Run.objects.filter(pk=last.pk).update(facts={"total_steps": 20})
    assert stop_reason(last.pk) == ""  # two others
    trained(three, [0.1, 0.1])
    assert stop_reason(last.pk)
    Run.objects.filter(pk=last.pk).update(facts={"total_steps": 100})
    assert stop_reason(last.pk) == ""  # a tenth of its steps
    Run.objects.filter(pk=last.pk).update(facts={"total_steps": 10})
    assert stop_reason(last.pk) == ""  # it has finished
    Run.objects.filter(pk=last.pk).update(facts={"total_steps": 20})
    Sweep.objects.update(early_stopping=False)
    assert stop_reason(last.pk) == ""


def test_earlier_trial_that_was_stopped_counts_as_far_as_it_came(sweep: Sweep) -> None:
    one, two, three, last = trials_of(sweep)
    trained(one, [0.1] * 10)
    trained(two, [0.1] * 10)
    trained(three, [0.8] * 3, status="stopped", steps=3)
    Run.objects.filter(pk=three.pk).update(facts={"total_steps": 10})
    trained(last, [0.9] * 5, status="running", steps=5)
    Run.objects.filter(pk=last.pk).update(facts={"total_steps": 10})
    assert stop_reason(last.pk) == ""  # two came as far as half
    trained(last, [0.9] * 3, status="running", steps=3)
    Run.objects.filter(pk=last.pk).update(facts={"total_steps": 10})
    assert "median of 3 earlier trials" in stop_reason(last.pk)


class Scripted:
    """A launcher whose job writes one probe, and runs until it is cancelled."""

    elsewhere = False

    def __init__(self) -> None:
        self.cancelled = False

    def submit(self, job: Any) -> str:
        lines = [
            {"type": "start", "total_steps": 20, "examples": 1, "device": "cpu", "dtype": "f"}
            | {"lambda_d": 1.0, "lambda_u": 1.0},
            {"type": "probe", "step": 10, "validation_loss": 0.9} | PROBE,
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (job.directory / "events.jsonl").write_text(text)
        return str(job.name)

    def poll(self, job_id: str) -> int | None:
        return CANCELLED if self.cancelled else None

    def cancel(self, job_id: str) -> None:
        self.cancelled = True

    def end(self, job_id: str, *, seconds: float = 0) -> None:
        pass

    def logs(self, job_id: str) -> str:
        return ""


def test_worker_stops_a_bad_trial_and_says_so(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    *earlier, last = trials_of(sweep)
    for run in earlier:
        trained(run, [0.1, 0.1])

    run_execute(claimed(last), Scripted())

    last.refresh_from_db()
    assert (last.status, last.error) == (Run.Status.STOPPED, "")
    assert last.notes.latest("pk").text.startswith("Stopped early after 50 % of its steps")
    with pytest.raises(UserError, match="is not trained"):
        sweeps_advance()
        trial_choose(sweep=reloaded(sweep), run=last, by=sweep.requested_by)


def test_order_to_cancel_and_to_stop_early_is_a_cancellation(sweep: Sweep, admin: User) -> None:
    claim = claimed(trials_of(sweep)[0])
    run_cancel(run=claim.row, by=admin)
    settle(claim, JobEnd(CANCELLED, early="worse"))
    claim.row.refresh_from_db()
    assert claim.row.status == Run.Status.CANCELLED


def reloaded(sweep: Sweep) -> Sweep:
    return Sweep.objects.select_related("project").get(pk=sweep.pk)


# -- limits


def test_sweep_that_has_had_its_hours_cancels_waiting_trials(sweep: Sweep) -> None:
    one, *waiting = trials_of(sweep)
    trained(one, [0.5])
    sweeps_advance()
    assert reloaded(sweep).ended_at is None
    Sweep.objects.update(max_hours=0.5)
    assert hours_spent(sweep) == pytest.approx(0.5)

    sweeps_advance()

    assert reloaded(sweep).ended_at is not None
    for run in waiting:
        run.refresh_from_db()
        assert run.status == Run.Status.CANCELLED
        assert run.notes.get().text == "Sweep 1 has had its 0.5 worker hours."


def test_trial_may_take_what_its_sweep_has_left(sweep: Sweep) -> None:
    one, two, *_ = trials_of(sweep)
    trained(one, [0.5])
    limit = run_limit(claimed(two).row)
    assert limit is not None
    assert limit.hours == pytest.approx(7.5)
    assert limit.name == "what its sweep may take"


# -- ends


def test_end_of_all_trials_is_one_notification_and_no_event(sweep: Sweep, admin: User) -> None:
    webhook_create(
        project=sweep.project, by=admin, url="https://93.184.215.14/hook", events=["run.finished"]
    )
    one, two, *others = trials_of(sweep)
    trial_trained(claimed(one))
    settle(claimed(two), JobEnd(4))  # refused by the trainer
    for run in others:
        trained(run, [0.5])
    sweeps_advance()
    sweeps_advance()
    assert [(n.kind, n.text) for n in Notification.objects.all()] == [
        (
            NotificationKind.RUN_FINISHED,
            "Sweep 1 has ended: its trials are compared on validation examples.",
        )
    ]
    assert WebhookDelivery.objects.count() == 0
    assert Adapter.objects.count() == 0


def test_best_trial_has_the_lowest_loss_of_those_that_were_trained(sweep: Sweep) -> None:
    one, two, three, four = trials_of(sweep)
    trained(one, [0.6, 0.4, 0.5])
    trained(two, [0.6, 0.3, 0.4], status="stopped")
    trained(three, [0.6, 0.45, 0.44])
    shown = trials_shown(sweep)
    best = best_of(shown)
    assert best is not None
    assert (best.run, best.figure, best.step) == (one, "0.400", 6)
    by_measure = trials_sorted(shown, by="measure", descending=False)
    assert [trial.run for trial in by_measure] == [two, one, three, four]
    by_rate = trials_sorted(shown, by="learning_rate", descending=True)
    assert [trial.run for trial in by_rate] == [four, three, two, one]


def test_losses_on_other_scales_are_compared_by_their_ranking(
    wide: Project, voted_project: Project, admin: User
) -> None:
    search = Search({"beta": (0.1, 0.5)})
    sweep = sweep_request(project=voted_project, by=admin, base=BASE, search=search)
    one, two = trials_of(sweep)
    # a lower loss, as a lower β gives, but a worse order; the adapter of the lowest loss is kept
    for run, probes in (
        (one, [[5, 0.2, 0.6], [10, 0.3, 0.99]]),
        (two, [[5, 0.6, 0.5], [10, 0.5, 0.8]]),
    ):
        Run.objects.filter(pk=run.pk).update(status="trained", probes=probes)
    best = best_of(trials_shown(sweep))
    assert best is not None
    assert (best.run, best.figure) == (two, "0.800")


# -- choosing


def test_chosen_trial_is_judged_by_the_gate_and_no_other(sweep: Sweep, admin: User) -> None:
    one, two, *others = trials_of(sweep)
    trained(one, [0.5])
    with pytest.raises(UserError, match="Sweep 1 is in progress"):
        trial_choose(sweep=sweep, run=one, by=admin)
    trained(two, [0.4])
    for run in others:
        trained(run, [0.6])
    sweeps_advance()
    sweep = reloaded(sweep)

    trial_choose(sweep=sweep, run=two, by=admin)

    two.refresh_from_db()
    assert (two.status, two.evaluates, two.started_at) == (Run.Status.QUEUED, True, None)
    assert AuditEvent.objects.get(action="sweep.choose").target == "Sweep 1: Run 2"
    with pytest.raises(UserError, match="Run 2 of this sweep was chosen"):
        trial_choose(sweep=sweep, run=one, by=admin)


def test_trial_is_not_chosen_beside_another_run_in_progress(sweep: Sweep, admin: User) -> None:
    for run in trials_of(sweep):
        trained(run, [0.5])
    sweeps_advance()
    run_request(project=sweep.project, by=admin, config=BASE)
    with pytest.raises(UserError, match="Another run is in progress"):
        trial_choose(sweep=reloaded(sweep), run=trials_of(sweep)[0], by=admin)


def test_trial_whose_examples_were_erased_cannot_be_chosen(sweep: Sweep, admin: User) -> None:
    for run in trials_of(sweep):
        trained(run, [0.5])
        run.directory.mkdir(parents=True)
    sweeps_advance()
    failed_run_files_remove([sweep.snapshot_id])
    one = trials_of(sweep)[0]
    assert not one.directory.exists()
    assert best_of(trials_shown(sweep)) is None
    with pytest.raises(UserError, match="is not trained"):
        trial_choose(sweep=reloaded(sweep), run=one, by=admin)


def test_trial_whose_adapter_was_deleted_cannot_be_chosen(
    sweep: Sweep, admin: User, as_user: As
) -> None:
    for run in trials_of(sweep):
        trained(run, [0.5])
    sweeps_advance()
    sweep.trials.update(adapter_deleted_at=timezone.now())
    with pytest.raises(UserError, match="The adapter of Run 1 was deleted"):
        trial_choose(sweep=reloaded(sweep), run=trials_of(sweep)[0], by=admin)
    page = as_user(admin).get(reverse("sweep", args=[sweep.project.slug, 1])).content.decode()
    assert "The adapters of these trials were deleted" in page
    assert "Evaluate" not in page


# -- cancelling


def test_cancelling_ends_waiting_trials_and_asks_running_ones(sweep: Sweep, admin: User) -> None:
    one, two, *_ = trials_of(sweep)
    trained(one, [0.5])
    claim = claimed(two)
    sweep_cancel(sweep=sweep, by=admin)
    statuses = [run.status for run in trials_of(sweep)]
    assert statuses == ["trained", "running", "cancelled", "cancelled"]
    assert claim.cancel_requested()
    assert reloaded(sweep).ended_at is None
    settle(claim, JobEnd(CANCELLED))
    sweeps_advance()
    assert reloaded(sweep).ended_at is not None
    # nobody is told what they did themselves
    assert Notification.objects.count() == 0
    with pytest.raises(UserError, match="has already ended"):
        sweep_cancel(sweep=reloaded(sweep), by=admin)


def test_trial_that_is_queued_again_meanwhile_is_cancelled_too(sweep: Sweep, admin: User) -> None:
    claim = claimed(trials_of(sweep)[0])
    run_requeue(claim=claim, why="stopped")
    sweep_cancel(sweep=sweep, by=admin)
    assert {run.status for run in trials_of(sweep)} == {Run.Status.CANCELLED}
    assert reloaded(sweep).ended_at is not None


# -- pages


def posted(**changed: str) -> dict[str, str]:
    values = form_values(BASE) | {"method": "grid", "max_hours": "8", "action": "start"}
    values |= {"setting_1": "learning_rate", "values_1": "1e-5, 1e-4", "early_stopping": "on"}
    return values | changed


def test_preview_shows_the_forecast_and_starts_nothing(
    wide: Project, voted_project: Project, admin: User, as_user: As, settings: Settings
) -> None:
    settings.WORKER_HOUR_PRICE = 2.0
    url = reverse("sweep-new", args=[voted_project.slug])
    client = as_user(admin)
    assert b"Start the" not in client.get(url).content
    page = client.post(url, posted(action="preview")).content.decode()
    assert "Start the" in page
    assert "Cost" in page
    assert "1e-05" in page
    assert Sweep.objects.count() == 0
    response = client.post(url, posted(at_once="2"))
    found = Sweep.objects.get()
    assert response.headers["Location"] == reverse("sweep", args=[voted_project.slug, 1])
    assert (found.trials.count(), found.requested_by, found.early_stopping) == (2, admin, True)
    assert found.at_once == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"values_1": "7, 8"}, "7 is not within 1e-07 to 0.01"),
        ({"setting_2": "learning_rate", "values_2": "1e-4"}, "This setting is chosen twice."),
        ({"values_2": "1, 2"}, "Choose the setting of these values."),
        ({"setting_1": "", "values_1": ""}, "Choose at least one setting to vary."),
        ({"setting_1": "kl_brake"}, "Select a valid choice."),
        ({"values_1": "<script>alert(1)</script>, 1"}, "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ({"max_hours": "0"}, "greater than or equal to 0.1"),
        ({"at_once": "0"}, "greater than or equal to 1"),
        ({"at_once": "99"}, "less than or equal to 32"),
        ({"loss": "sft", "beta": "", "setting_1": "beta", "values_1": "0.1, 0.5"}, "SFT on the"),
    ],
)
def test_form_with_an_error_is_shown_again_with_its_values(
    wide: Project,
    voted_project: Project,
    admin: User,
    as_user: As,
    changed: dict[str, str],
    message: str,
) -> None:
    url = reverse("sweep-new", args=[voted_project.slug])
    response = as_user(admin).post(url, posted(**changed))
    assert response.status_code == 400
    assert message in response.content.decode()
    assert (Sweep.objects.count(), Run.objects.count()) == (0, 0)


def test_page_of_a_sweep_shows_the_best_and_starts_the_gate(
    sweep: Sweep, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    url = reverse("sweep", args=[sweep.project.slug, 1])
    shown = client.get(url).content.decode()
    assert "0 of 4 trials have ended" in shown
    assert "0 in progress, 4 waiting" in shown
    assert "one trial at a time" in shown
    assert "every 5s" in shown
    one, two, three, four = trials_of(sweep)
    trained(one, [0.5, 0.45])
    trained(two, [0.4, 0.35])
    trained(three, [0.9], status="stopped")
    trained(four, [0.6])
    sweeps_advance()
    page = client.get(url).content.decode()
    assert "Best by validation" in page
    assert "Stopped early" in page
    assert page.count("<polyline") == 4
    assert "every 5s" not in page
    assert client.get(f"{url}?sort=learning_rate&order=descending").status_code == 200
    assert client.get(f"{url}?sort=owner__password").status_code == 400
    response = client.post(reverse("sweep-choose", args=[sweep.project.slug, 1]), {"run": "2"})
    assert response.headers["Location"] == reverse("run", args=[sweep.project.slug, 2])
    page = client.get(url).content.decode()
    assert "was chosen" in page
    assert "Evaluate by the gate" not in page
    assert (
        client.post(
            reverse("sweep-choose", args=[sweep.project.slug, 1]), {"run": "99"}
        ).status_code
        == 404
    )


def test_trials_are_not_in_the_list_of_runs_until_they_are_chosen(
    sweep: Sweep, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    runs = reverse("runs", args=[sweep.project.slug])
    assert "No run yet" in client.get(runs).content.decode()
    trained(trials_of(sweep)[0], [0.5])
    page = client.get(reverse("run", args=[sweep.project.slug, 1])).content.decode()
    assert "A trial that was not chosen makes no" in page
    assert reverse("sweep", args=[sweep.project.slug, 1]) in page
    assert "Release " not in page
    Run.objects.filter(number=1).update(evaluates=True)
    assert "Trial of a sweep" in client.get(runs).content.decode()


def test_list_is_paginated_and_its_queries_are_constant(
    sweep: Sweep, admin: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    Sweep.objects.update(ended_at=timezone.now())
    Sweep.objects.bulk_create(
        Sweep(
            project=sweep.project,
            number=number,
            snapshot=sweep.snapshot,
            method="random",
            space={"epochs": {"low": 1, "high": 3}},
            max_hours=1,
            requested_by=admin,
            ended_at=timezone.now(),
        )
        for number in range(2, 60)
    )
    client = as_user(admin)
    url = reverse("sweeps", args=[sweep.project.slug])
    client.get(url)
    with django_assert_max_num_queries(14):
        page = client.get(url).content.decode()
    assert "Page 1 of 3" in page
    assert "Sweep 59" in page


def test_sweep_of_another_project_is_not_found(
    sweep: Sweep, outsider: User, annotator: User, as_user: As
) -> None:
    url = reverse("sweep", args=[sweep.project.slug, 1])
    assert as_user(outsider).get(url).status_code == 404
    assert as_user(annotator).get(url).status_code in (403, 404)
    assert as_user(outsider).get(reverse("sweep", args=["other", 1])).status_code == 404


# -- the command


def test_command_starts_a_sweep_and_refuses_bad_values(
    wide: Project, voted_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--project", voted_project.slug, "--batch-size", "8", "--set"]
    call_command(
        "sweep", *arguments, "learning_rate=1e-5 to 1e-3", "--random", "3", "--at-once", "2"
    )
    assert "Sweep 1: 3 trials" in capsys.readouterr().out
    found = Sweep.objects.get()
    assert (found.method, found.trials.count(), found.at_once) == ("random", 3, 2)
    assert found.trials.first().config["batch_size"] == 8
    with pytest.raises(CommandError, match="is not within"):
        call_command("sweep", *arguments, "learning_rate=9")
    with pytest.raises(CommandError, match="SETTING=VALUES"):
        call_command("sweep", *arguments, "learning_rate")
    with pytest.raises(CommandError, match="There is no project nowhere"):
        call_command("sweep", "--project", "nowhere", "--set", "epochs=1,2")


# -- for real


@pytest.mark.slow
@pytest.mark.long
def test_sweep_trains_chooses_by_validation_and_sees_no_test_example(
    wide: Project, voted_project: Project, admin: User, settings: Settings, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    settings.ARTIFACT_ROOT, settings.MODELS_ROOT = tmp_path / "artifacts", tmp_path / "models"
    make_tiny_model(tmp_path / "models" / voted_project.base_model)
    search = Search({"learning_rate": (5e-3, 1e-7)})
    base = RunConfig(epochs=2, batch_size=8, kl_brake=None)
    sweep = sweep_request(project=voted_project, by=admin, base=base, search=search)
    while claim := run_claim_next():
        run_execute(claim, ProcessLauncher())
    sweeps_advance()

    trials = trials_of(sweep)
    assert {run.status for run in trials} == {Run.Status.TRAINED}, [run.error for run in trials]
    best = best_of(trials_shown(sweep))
    assert best is not None
    lowest = {run: min(losses_of(run)) for run in trials}
    assert lowest[best.run] == min(lowest.values()) == best.value
    assert len(set(lowest.values())) == 2
    assert (Adapter.objects.count(), Notification.objects.count()) == (0, 1)
    # the test split has not been written for the trainer
    test = sweep.snapshot.items.filter(split=Split.TEST).select_related("completion__prompt")
    texts = [item.completion.prompt.messages[-1]["content"] for item in test]
    assert len(texts) == 12
    files = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
    assert files
    assert not [p for p in files if any(f'"{text}"'.encode() in p.read_bytes() for text in texts)]

    chosen = best.run
    weights = (chosen.directory / "adapter" / "adapter_model.safetensors").read_bytes()
    trial_choose(sweep=reloaded(sweep), run=chosen, by=admin)
    claim = run_claim_next()
    assert claim is not None
    run_execute(claim, ProcessLauncher())

    chosen.refresh_from_db()
    assert chosen.status == Run.Status.SUCCEEDED, chosen.error
    assert (chosen.adapter.directory / "adapter_model.safetensors").read_bytes() == weights
    assert chosen.adapter.gate_outcome
    assert sweep.trials.filter(status=Run.Status.TRAINED).count() == 1
    assert Adapter.objects.count() == 1


def losses_of(run: Run) -> list[float]:
    """Return the validation losses that the trainer wrote."""
    events = map(json.loads, (run.directory / "events.jsonl").read_text().splitlines())
    return [event["validation_loss"] for event in events if event["type"] == "probe"]
