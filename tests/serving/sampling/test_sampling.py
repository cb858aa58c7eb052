"""Sampled answers, and the source that they are stored with."""

import datetime as dt
import threading
from collections.abc import Callable
from importlib import import_module

import pytest
from django.apps import apps
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.db.heartbeats import Heartbeat
from feedback_app.feedback.models import BASE_VERSION, Completion, Project, Sampling, Source
from feedback_app.feedback.prompts.completions import sampling_request
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.serving.sampling.services import (
    answers_store,
    sampling_claim,
    sampling_execute,
)
from tests.conftest import MakeCompletions
from tests.engines import wait_until
from tests.served import MODEL
from tests.serving.engine.slow_engine import slow_engine

As = Callable[[User], Client]


@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
def test_sampled_answers_are_queued_with_the_source_sampled(
    project: Project, settings: Settings
) -> None:
    question = [{"role": "user", "content": "Why?"}]
    prompt_get_or_create(project=project, messages=question, source=Source.IMPORT)
    project.base_model = MODEL
    project.save()
    with slow_engine() as engine:
        settings.ENGINES = {MODEL: engine.url}
        claim = sampling_claim(sampling_request(project=project).pk)
        assert claim is not None
        sampling_execute(claim)

    found = {(row.source, row.version, row.queued) for row in project.completions.all()}
    assert found == {("sampled", BASE_VERSION, True)}


@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
def test_worker_that_lost_its_claim_stores_no_answer(project: Project, settings: Settings) -> None:
    """A worker that was paused wakes up with an answer, and another one has asked for it too."""
    for number in range(3):
        question = [{"role": "user", "content": f"Question {number}?"}]
        prompt_get_or_create(project=project, messages=question, source=Source.IMPORT)
    project.base_model = MODEL
    project.save()
    sampling = sampling_request(project=project, answers_per_prompt=1)
    paused = sampling_claim(sampling.pk)
    Sampling.objects.update(heartbeat_at=timezone.now() - dt.timedelta(days=1))
    taken_over = sampling_claim(sampling.pk)
    assert paused is not None
    assert taken_over is not None
    with slow_engine() as engine:
        settings.ENGINES = {MODEL: engine.url}
        answers_store(paused, Heartbeat())
        assert not sampling.completions.exists()
        sampling_execute(taken_over)
    assert sampling.completions.count() == 3


@pytest.mark.django_db
def test_migration_distinguishes_sampled_answers_from_imports(
    project: Project, make_completions: MakeCompletions, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration = import_module("feedback_app.feedback.migrations.0020_sampled_completions")
    monkeypatch.setattr(migration, "BATCH", 2)
    sampling = Sampling.objects.create(project=project)
    rows = make_completions(7)
    sampled = [row.pk for row in rows[:5]]
    project.completions.update(sampling=None)
    Completion.objects.filter(pk__in=sampled).update(sampling=sampling)

    migration.file_as_sampled(apps, None)

    assert set(project.completions.filter(source="sampled").values_list("pk", flat=True)) == set(
        sampled
    )
    assert project.completions.filter(source="import").count() == 2
    migration.file_as_imports(apps, None)
    assert project.completions.filter(source="import").count() == 7


@pytest.mark.django_db
def test_queue_and_examples_can_be_filtered_to_sampled_answers(
    project: Project, admin: User, client: Client, make_completions: MakeCompletions
) -> None:
    sampled, imported = make_completions(2)
    Completion.objects.filter(pk=sampled.pk).update(source=Source.SAMPLED)
    client.force_login(admin)

    desk = client.get(reverse("annotate", args=[project.slug]) + "?source=sampled")
    listed = client.get(reverse("examples", args=[project.slug]) + "?source=sampled")

    assert sampled.text in desk.content.decode()
    assert imported.text not in desk.content.decode()
    assert listed.status_code == 200
    assert '<option value="sampled" selected>Sampled</option>' in listed.content.decode()


@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
def test_cancelled_sampling_keeps_its_answers_and_frees_the_engine(
    project: Project, admin: User, as_user: As, settings: Settings
) -> None:
    settings.RUN_STALE_SECONDS = 2
    for number in range(20):
        question = [{"role": "user", "content": f"Question {number}?"}]
        prompt_get_or_create(project=project, messages=question, source=Source.IMPORT)
    project.base_model = MODEL
    project.save()
    sampling = sampling_request(project=project, answers_per_prompt=2)
    client = as_user(admin)
    settings_page = reverse("project-settings", args=[project.slug])
    with slow_engine() as engine:
        settings.ENGINES = {MODEL: engine.url}
        engine.behave(token_seconds=0.01)
        claim = sampling_claim(sampling.pk)
        assert claim is not None
        worker = threading.Thread(target=lambda: (sampling_execute(claim), connection.close()))
        worker.start()
        wait_until(sampling.completions.exists, what="the first answers")
        engine.behave(tokens=100_000, token_seconds=0.05)
        wait_until(lambda: engine.under_way, what="answers that take for ever")
        cancel = reverse("sampling-cancel", args=[project.slug, sampling.pk])
        assert cancel in client.get(settings_page).content.decode()

        page = client.post(cancel, follow=True).content.decode()

        assert "was cancelled" in page
        worker.join(60)
        assert not worker.is_alive()
        wait_until(lambda: engine.under_way == 0, what="the engine to become idle")
        again = client.post(cancel, follow=True).content.decode()
        assert "has ended already" in again
    sampling.refresh_from_db()
    assert (sampling.status, sampling.total) == ("cancelled", 40)
    assert 0 < sampling.done == sampling.completions.count() < 40
    assert sampling_claim(sampling.pk) is None
    assert AuditEvent.objects.get(action="sampling.cancel").actor == admin
    # and another one can be requested
    url = reverse("sampling-new", args=[project.slug])
    client.post(url, {"answers_per_prompt": "1", "version": "base"})
    assert project.samplings.filter(status="queued").count() == 1
