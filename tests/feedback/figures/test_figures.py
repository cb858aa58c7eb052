"""Figures of a large project: counted by a worker, shown by pages."""

import datetime as dt
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.db import bounded_count
from feedback_app.feedback import tasks as feedback_tasks
from feedback_app.feedback.figures.services import (
    FRESH,
    Counted,
    figures_count,
    figures_due,
    figures_read,
)
from feedback_app.feedback.models import Figures, Project
from feedback_app.serving import tasks as serving_tasks
from feedback_app.training import tasks as training_tasks

As = Callable[[User], Client]
pytestmark = pytest.mark.django_db


@pytest.fixture
def large(voted_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with more votes than a page counts."""
    monkeypatch.setattr(bounded_count, "COUNTED", 10)
    return voted_project


def read(project: Project) -> Counted:
    return figures_read(
        project=project,
        name="votes",
        count=lambda project: project.votes.count(),
        rows=project.votes.all(),
    )


def test_small_project_is_counted_by_the_page(voted_project: Project) -> None:
    assert read(voted_project) == Counted(voted_project.votes.count())
    assert not Figures.objects.exists()


def test_large_project_is_counted_by_a_worker_once_it_is_asked_for(large: Project) -> None:
    assert read(large) == Counted(None)
    [due] = figures_due("votes")
    assert figures_count(pk=due.pk, count=lambda project: project.votes.count())
    assert not figures_count(pk=due.pk, count=lambda project: 0), "it is not due any more"
    found = read(large)
    assert found.value == large.votes.count()
    assert found.at is not None
    assert not figures_due("votes").exists()


def test_old_figures_are_shown_and_counted_again(large: Project) -> None:
    old = timezone.now() - FRESH - dt.timedelta(seconds=1)
    Figures.objects.create(
        project=large, name="votes", status=Figures.Status.DONE, value=7, counted_at=old
    )
    assert read(large).value == 7
    [due] = figures_due("votes")
    figures_count(pk=due.pk, count=lambda project: 8)
    assert read(large).value == 8


def test_pages_show_figures_after_the_tick(
    large: Project, admin: User, annotator: User, as_user: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tasks in (feedback_tasks, training_tasks, serving_tasks):
        task = tasks.count_figures
        monkeypatch.setattr(task, "apply_async", lambda ids, task=task, **_: task(*ids))
    content = training_tasks.count_content
    monkeypatch.setattr(content, "apply_async", lambda ids, **_: content(*ids))
    client, votes = as_user(admin), f"{large.votes.filter(user=annotator).count()} votes"
    pages = [reverse(name, args=[large.slug]) for name in ("runs", "releases", "people")]
    pages.append(reverse("person", args=[large.slug, annotator.pk]))

    runs, releases, people, person = (client.get(url).content.decode() for url in pages)
    assert "A worker is counting the votes of this project" in runs
    assert "A worker is counting the votes on each version" in releases
    assert votes not in people
    assert "A worker is counting the votes" in person

    for tasks in (feedback_tasks, training_tasks, serving_tasks):
        tasks.dispatch()
    runs, releases, people, person = (client.get(url).content.decode() for url in pages)
    assert "A worker is counting" not in runs + releases + person
    assert "Counted " in runs
    assert "Votes counted" in releases
    assert votes in people
    assert votes in client.get(f"{pages[2]}?sort=votes").content.decode()
