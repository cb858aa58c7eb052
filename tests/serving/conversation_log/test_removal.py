"""Removing conversations: nothing that was judged goes, and all that was not does."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import (
    Completion,
    Example,
    Project,
    Prompt,
    Source,
    Verdict,
    Vote,
)
from feedback_app.feedback.votes.corrections import vote_cast_corrected
from feedback_app.feedback.votes.services import vote_undo
from feedback_app.privacy import tasks
from feedback_app.privacy.erasure import person_erase
from feedback_app.serving.conversation_log import removal
from feedback_app.serving.conversation_log.removal import (
    conversations_expire,
    conversations_remove,
    projects_past,
)
from feedback_app.serving.models import Conversation, Turn
from feedback_app.serving.share_links.services import link_create
from tests.serving.conversation_log.world import age, answer, talk, thumb

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]


@pytest.fixture
def kept_a_week(project: Project) -> Project:
    project.conversation_days = 7
    project.save()
    return project


def test_unjudged_conversation_goes_with_questions_and_answers(
    project: Project, viewer: User
) -> None:
    chat = talk(project, viewer, "Where is Oslo?", "And Bergen?")

    assert conversations_remove([chat.pk]) == 1

    for model in (Conversation, Turn, Completion, Prompt):
        assert not model.objects.exists()  # type: ignore[attr-defined]
    assert conversations_remove([chat.pk]) == 0


def test_judged_answer_stays_as_an_example_and_the_rest_goes(
    project: Project, viewer: User
) -> None:
    chat = talk(project, viewer, "Where is Oslo?", "And Bergen?")
    judged = thumb(chat, "up", at=1)

    conversations_remove([chat.pk])

    assert Completion.objects.get() == judged
    assert Example.objects.get().pk == judged.pk
    assert Vote.objects.count() == 1
    assert Prompt.objects.get() == judged.prompt
    left = Conversation.objects.get()
    assert (left.title, left.removed_at is None) == ("", False)
    assert not Conversation.objects.kept().exists()


def test_queued_answer_and_a_question_of_others_stay(project: Project, viewer: User) -> None:
    queued = talk(project, viewer, "Where is Oslo?")
    Completion.objects.update(queued=True)
    asked = talk(project, viewer, "Shared question?")
    other = answer(project, "Shared question?", "Another answer")

    conversations_remove([queued.pk, asked.pk])

    assert set(Completion.objects.values_list("text", flat=True)) == {
        "About Where is Oslo?",
        "Another answer",
    }
    assert Prompt.objects.count() == 2
    assert other.prompt.completions.get() == other


def test_erasure_finds_what_a_removed_conversation_left(project: Project, viewer: User) -> None:
    chat = talk(project, viewer, "My secret?")
    thumb(chat, "up")
    conversations_remove([chat.pk])

    person_erase(user=viewer, by=None, project=project)

    assert not Prompt.objects.exists()
    assert not Completion.objects.exists()
    assert not Conversation.objects.exists()


def test_erasure_finds_a_withdrawn_correction_after_the_conversation_was_removed(
    project: Project, viewer: User
) -> None:
    chat = talk(project, viewer, "Where is Oslo?")
    turn = chat.turns.select_related("completion__project", "completion__prompt").get()
    assert turn.completion is not None
    vote_cast_corrected(
        completion=turn.completion,
        correction="In Norway, as I told my doctor.",
        verdict=Verdict.DOWN,
        by=viewer,
        source=Source.DEMO,
    )
    vote_undo(completion=turn.completion, by=viewer, source=Source.DEMO)

    conversations_remove([chat.pk])

    assert not Conversation.objects.kept().exists()
    person_erase(user=viewer, by=None, project=project)
    assert not Completion.objects.exists()


def test_retention_removes_in_batches_what_is_older(
    kept_a_week: Project, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "BATCH", 2)
    monkeypatch.setattr(removal, "BATCHES", 2)
    for number in range(5):
        age(talk(kept_a_week, viewer, f"Old {number}?"), days=8)
    age(talk(kept_a_week, viewer, "New?"), days=6)

    assert conversations_expire(kept_a_week.pk) == 4
    assert projects_past() == [kept_a_week.pk]
    assert conversations_expire(kept_a_week.pk) == 1

    assert Conversation.objects.get().title == "New?"
    assert projects_past() == []


def test_without_a_limit_nothing_is_removed(project: Project, viewer: User) -> None:
    age(talk(project, viewer, "Old?"), days=4_000)

    assert projects_past() == []
    assert conversations_expire(project.pk) == 0
    assert Conversation.objects.exists()


def test_dispatch_sends_projects_to_a_worker(
    kept_a_week: Project, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(talk(kept_a_week, viewer, "Old?"), days=8)
    sent: list[Any] = []
    monkeypatch.setattr(
        tasks.expire_conversations, "apply_async", lambda args, **options: sent.append(args)
    )

    tasks.dispatch()

    assert sent == [(kept_a_week.pk,)]
    tasks.expire_conversations(kept_a_week.pk)
    assert not Conversation.objects.exists()


def test_days_are_a_setting_that_the_demo_tells(
    project: Project, admin: User, viewer: User, as_user: As
) -> None:
    client, target = as_user(admin), reverse("project-settings", args=[project.slug])
    form = client.get(target).context["form"]
    values = {name: form[name].value() for name in form.fields if form[name].value() is not None}

    refused = client.post(target, values | {"conversation_days": "0"})
    saved = client.post(target, values | {"conversation_days": "30"})

    project.refresh_from_db()
    assert (refused.status_code, saved.status_code) == (400, 302)
    assert project.conversation_days == 30
    page = " ".join(
        as_user(viewer).get(reverse("demo", args=[project.slug])).content.decode().split()
    )
    assert "Admins of this project can read what you write; it is deleted after 30 days" in page
    _, secret = link_create(
        project=project, label="Board", choice="live", days=7, messages_limit=9,
        messages_each=9, votes_limit=9, by=admin,
    )  # fmt: skip
    page = " ".join(Client().get(reverse("shared", args=[secret])).content.decode().split())
    assert "who gave you this link can read what you write; it is deleted after 30 days" in page
