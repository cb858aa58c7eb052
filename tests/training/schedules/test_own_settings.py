"""A schedule with run settings of its own."""

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Project
from feedback_app.training.models import Schedule
from feedback_app.training.runs.config import RunConfig, form_values
from feedback_app.training.schedules.own_settings import (
    schedule_settings_set,
    settings_scheduled,
)
from feedback_app.training.schedules.services import schedule_set, schedules_run
from feedback_app.web.errors import UserError

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]


def scheduled(project: Project, by: User) -> None:
    schedule_set(
        project=project,
        by=by,
        enabled=True,
        min_new_examples=1,
        min_hours=0,
        auto_release=False,
    )


def test_scheduled_runs_use_the_schedules_own_settings(
    voted_project: Project, admin: User, as_user: As
) -> None:
    scheduled(voted_project, admin)
    url = reverse("schedule-settings", args=[voted_project.slug])
    client = as_user(admin)
    assert "the settings that Train begins with" in client.get(url).content.decode()
    own = RunConfig(epochs=3, loss="sft", beta=None, batch_size=8)
    response = client.post(url, form_values(own) | {"use": "own"})
    assert response.headers["Location"] == reverse("runs", args=[voted_project.slug])

    page = client.get(response.headers["Location"]).content.decode()
    assert "own settings (Loss, β, Batch, Epochs)" in " ".join(page.split())
    assert AuditEvent.objects.get(action="schedule.settings").target == (
        "own settings: Loss, β, Batch, Epochs"
    )
    (run,) = schedules_run()
    assert RunConfig.stored(run.config) == own


def test_schedule_without_own_settings_uses_those_that_train_begins_with(
    voted_project: Project, admin: User, as_user: As
) -> None:
    scheduled(voted_project, admin)
    schedule_settings_set(project=voted_project, by=admin, config=RunConfig(epochs=7))
    body = form_values(RunConfig(epochs=7)) | {"use": "default"}
    as_user(admin).post(reverse("schedule-settings", args=[voted_project.slug]), body)
    assert Schedule.objects.get().config is None
    (run,) = schedules_run()
    assert RunConfig.stored(run.config) == RunConfig()


def test_start_from_the_live_version_is_kept(voted_project: Project, admin: User) -> None:
    config = RunConfig(start_from="live")
    schedule = schedule_settings_set(project=voted_project, by=admin, config=config)
    schedule.refresh_from_db()
    assert settings_scheduled(schedule, voted_project) == config


def test_invalid_settings_are_shown_again(project: Project, admin: User, as_user: As) -> None:
    body = form_values(RunConfig()) | {"use": "own", "epochs": "0"}
    response = as_user(admin).post(reverse("schedule-settings", args=[project.slug]), body)
    assert response.status_code == 400
    assert "Choose 1 to 20." in response.content.decode()
    assert not Schedule.objects.exists()


def test_settings_that_were_saved_meanwhile_are_not_overwritten(
    project: Project, admin: User, as_user: As
) -> None:
    url = reverse("schedule-settings", args=[project.slug])
    client = as_user(admin)
    seen = client.get(url).context["form"]["seen"].value()
    body = form_values(RunConfig()) | {"use": "own", "seen": seen}
    client.post(url, body | {"epochs": "5"})
    assert client.post(url, body | {"epochs": "6"}).status_code == 409
    assert Schedule.objects.get().config["epochs"] == 5


def test_schedule_of_an_earlier_version_with_settings_that_are_invalid_now_says_so(
    voted_project: Project, admin: User, as_user: As
) -> None:
    scheduled(voted_project, admin)
    schedule = schedule_settings_set(project=voted_project, by=admin, config=RunConfig())
    schedule.config = schedule.config | {"epochs": 1000, "gone": 1}
    with pytest.raises(UserError, match="Epochs is 1000"):
        settings_scheduled(schedule, voted_project)
    schedule.save()
    client = as_user(admin)
    page = client.get(reverse("runs", args=[voted_project.slug])).content.decode()
    assert "Waits: Epochs is 1000" in page
    response = client.get(reverse("schedule-settings", args=[voted_project.slug]))
    assert response.context["form"]["epochs"].value() == RunConfig.epochs


def test_page_names_why_a_run_with_the_schedules_settings_would_be_refused(
    voted_project: Project, admin: User, as_user: As
) -> None:
    scheduled(voted_project, admin)
    schedule_settings_set(project=voted_project, by=admin, config=RunConfig(batch_size=256))
    for name in ("runs", "project-home"):
        page = as_user(admin).get(reverse(name, args=[voted_project.slug])).content.decode()
        assert "Waits: " in page
        assert "fewer than one batch of 256" in page
