"""A person's own conversations: list, search, rename, delete, settings and branches."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.serving.comparisons.services import side_stream
from feedback_app.serving.demo import branches, conversations
from feedback_app.serving.demo.branches import branch_show
from feedback_app.serving.demo.conversations import (
    sampling_of,
    turn_again,
    turn_begin,
    turn_messages,
)
from feedback_app.serving.models import Comparison, Conversation, Turn
from feedback_app.training.models import Adapter
from feedback_app.web.errors import UserError
from tests.serving.conversation_log.world import answer, talk
from tests.serving.project_home.test_history import released

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]
STREAM = {"Accept": "text/event-stream"}


def url(name: str, chat: Conversation, *args: Any) -> str:
    return reverse(name, args=[chat.project.slug, chat.pk, *args])


def mine(project: Project, query: str = "") -> str:
    return reverse("conversations", args=[project.slug]) + query


# -- list


def test_list_and_search_show_own_conversations_only(
    project: Project, viewer: User, admin: User, as_user: As
) -> None:
    talk(project, viewer, "Where is Oslo?")
    talk(project, viewer, "Who is Ada?")
    talk(project, admin, "A secret of the admin?")

    page = as_user(viewer).get(mine(project)).content.decode()
    found = as_user(viewer).get(mine(project, "?text=about+who")).content.decode()

    assert "Oslo" in page
    assert "secret" not in page
    assert "Who is Ada?" in found
    assert "Oslo" not in found
    assert as_user(viewer).get(mine(project, "?user=1")).status_code == 400


def test_list_needs_no_more_queries_for_more_conversations(
    project: Project, viewer: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    for number in range(6):
        talk(project, viewer, f"Question {number}?", "More?")
    client = as_user(viewer)

    with django_assert_max_num_queries(7):
        client.get(mine(project))


def test_rename_keeps_the_order(project: Project, viewer: User, as_user: As) -> None:
    old, new = talk(project, viewer, "Old?"), talk(project, viewer, "New?")
    before = Conversation.objects.get(pk=old.pk).updated_at

    as_user(viewer).post(url("conversation-rename", old), {"title": "<b>Mine</b>"})

    old.refresh_from_db()
    assert (old.title, old.updated_at) == ("<b>Mine</b>", before)
    page = as_user(viewer).get(mine(project)).content.decode()
    assert "&lt;b&gt;Mine&lt;/b&gt;" in page
    assert as_user(viewer).post(url("conversation-rename", new), {"title": " "}).status_code == 400


def test_deleted_conversation_is_gone_for_its_owner(
    project: Project, viewer: User, as_user: As
) -> None:
    chat, client = talk(project, viewer, "Where is Oslo?"), as_user(viewer)

    client.post(url("conversation-delete", chat))

    assert not Conversation.objects.exists()
    assert client.get(url("conversation", chat)).status_code == 404
    assert "Oslo" not in client.get(mine(project)).content.decode()


def test_conversation_of_others_can_be_neither_changed_nor_deleted(
    project: Project, viewer: User, admin: User, as_user: As
) -> None:
    chat = talk(project, viewer, "Where is Oslo?")
    turn = chat.turns.get()
    for name, body in (
        ("conversation-rename", {"title": "x"}),
        ("conversation-delete", {}),
        ("conversation-settings", {"temperature": "1"}),
    ):
        assert as_user(admin).post(url(name, chat), body).status_code == 404
    assert as_user(admin).post(url("turn-show", chat, turn.pk)).status_code == 404
    chat.refresh_from_db()
    assert (chat.title, chat.temperature) == ("Where is Oslo?", None)


# -- settings of one conversation


def test_admin_tries_a_system_prompt_and_a_temperature_in_one_chat(
    project: Project, admin: User, as_user: As
) -> None:
    chat = talk(project, admin, "Where is Oslo?")
    body = {"own_prompt": "on", "system_prompt": "Be a pirate.", "temperature": "0.1"}

    as_user(admin).post(url("conversation-settings", chat), body)

    chat.refresh_from_db()
    assert (chat.system_prompt, chat.temperature) == ("Be a pirate.", 0.1)
    assert sampling_of(chat).temperature == 0.1
    assert "Be a pirate." in as_user(admin).get(url("conversation", chat)).content.decode()
    as_user(admin).post(url("conversation-settings", chat), {"system_prompt": "x"})
    chat.refresh_from_db()
    assert (chat.system_prompt, chat.temperature) == (None, None)
    assert sampling_of(chat).temperature == project.temperature


def test_viewer_cannot_set_a_system_prompt(project: Project, viewer: User, as_user: As) -> None:
    chat = talk(project, viewer, "Where is Oslo?")

    refused = as_user(viewer).post(url("conversation-settings", chat), {"temperature": "1"})

    assert refused.status_code == 403
    assert "system_prompt" not in as_user(viewer).get(url("conversation", chat)).content.decode()


@pytest.mark.parametrize("temperature", ["-1", "2.1", "nan", "warm"])
def test_temperature_outside_its_range_is_refused(
    temperature: str, project: Project, admin: User, as_user: As
) -> None:
    chat = talk(project, admin, "Where is Oslo?")

    as_user(admin).post(url("conversation-settings", chat), {"temperature": temperature})

    chat.refresh_from_db()
    assert chat.temperature is None


# -- branches


def texts(chat: Conversation) -> list[str]:
    return [turn.user_message for turn in chat.turns.shown()]


def answered(turn: Turn, text: str) -> Turn:
    """Give a new turn its answer."""
    turn.completion = answer(turn.conversation.project, turn.user_message, text)
    turn.save()
    return turn


def test_edited_question_is_a_branch_and_both_go_on(project: Project, viewer: User) -> None:
    chat = talk(project, viewer, "Hello?", "Where is Oslo?")
    old = chat.turns.get(position=1)

    new = answered(turn_again(turn=old, text="Where is Rome?"), "In Italy")
    answered(turn_begin(conversation=chat, text="And Milan?"), "Also")
    assert texts(chat) == ["Hello?", "Where is Rome?", "And Milan?"]

    branch_show(turn=old)
    assert texts(chat) == ["Hello?", "Where is Oslo?"]
    bergen = answered(turn_begin(conversation=chat, text="And Bergen?"), "West")
    said = [message["content"] for message in turn_messages(bergen)]
    assert said == [
        "Hello?", "About Hello?", "Where is Oslo?", "About Where is Oslo?", "And Bergen?",
    ]  # fmt: skip

    branch_show(turn=new)
    assert texts(chat) == ["Hello?", "Where is Rome?", "And Milan?"]


def test_first_question_has_branches_too(project: Project, viewer: User) -> None:
    chat = talk(project, viewer, "Hello?")
    old = chat.turns.get()

    answered(turn_again(turn=old), "Another answer")
    assert [turn.completion.text for turn in chat.turns.shown()] == ["Another answer"]

    branch_show(turn=old)
    assert [turn.completion.text for turn in chat.turns.shown()] == ["About Hello?"]
    assert chat.turns.count() == 2


def test_turn_without_answer_is_asked_again_without_a_branch(
    project: Project, viewer: User
) -> None:
    chat = talk(project, viewer, "Hello?")
    failed = turn_begin(conversation=chat, text="And?")
    Turn.objects.filter(pk=failed.pk).update(error="The engine does not answer.")

    again = turn_again(turn=chat.turns.get(pk=failed.pk))

    assert (again.pk, again.error) == (failed.pk, "")
    assert chat.turns.count() == 2


def test_only_the_last_shown_turn_is_asked_again(project: Project, viewer: User) -> None:
    chat = talk(project, viewer, "Hello?", "And?")
    first, last = chat.turns.shown()

    with pytest.raises(UserError, match="Only the last"):
        turn_again(turn=first)
    turn_again(turn=last)
    with pytest.raises(UserError, match="Only the last"):
        turn_again(turn=last)  # a second click: it is on another branch now


def test_number_of_turns_on_all_branches_is_bounded(
    project: Project, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branches, "BRANCHED_LIMIT", 3)
    chat = talk(project, viewer, "Hello?")
    for number in range(2):
        answered(turn_again(turn=chat.turns.shown()[0]), f"Answer {number}")

    with pytest.raises(UserError, match="too many versions"):
        turn_again(turn=chat.turns.shown()[0])
    with pytest.raises(UserError, match="too many versions"):
        turn_begin(conversation=chat, text="And?")
    assert conversations.TURN_LIMIT > 3


def test_arrows_lead_to_the_other_versions(project: Project, viewer: User, as_user: As) -> None:
    chat, client = talk(project, viewer, "Hello?", "Where is Oslo?"), as_user(viewer)
    old = chat.turns.get(position=1)
    answered(turn_again(turn=old), "Another answer")

    page = client.get(url("conversation", chat)).content.decode()
    back = url("turn-show", chat, old.pk)
    shown = client.post(back, follow=True).content.decode()

    assert "2/2" in page
    assert page.count(f'action="{back}"') == 1
    assert "1/2" in shown
    assert "Another answer" not in shown
    assert "Earlier version" not in shown


def test_branches_cost_a_fixed_number_of_queries(
    project: Project, viewer: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    chat, client = talk(project, viewer, "Hello?"), as_user(viewer)
    for number in range(5):
        answered(turn_again(turn=chat.turns.shown()[0]), f"Answer {number}")
        answered(turn_begin(conversation=chat, text=f"And {number}?"), "Yes")
        branch_show(turn=chat.turns.order_by("pk")[0])

    with django_assert_max_num_queries(12):
        page = client.get(url("conversation", chat)).content.decode()
    assert "1/6" in page


def test_conversations_from_before_branches_get_them(project: Project, viewer: User) -> None:
    """Turns of earlier versions have no parents stored."""
    chat = talk(project, viewer, "Hello?", "Where is Oslo?", "And Bergen?")
    chat.turns.update(parent=None)
    last = chat.turns.get(position=2)

    answered(turn_again(turn=last, text="And Rome?"), "No")
    branch_show(turn=last)

    assert texts(chat) == ["Hello?", "Where is Oslo?", "And Bergen?"]


# -- versions that can be used no more


@pytest.mark.parametrize("gone", ["discarded_at", "locked_at"])
def test_version_that_was_discarded_or_locked_answers_nobody(
    gone: str, project: Project, viewer: User, as_user: As
) -> None:
    old = released(project, 1, days_ago=3, until=2)
    chat = talk(project, viewer, "Where is Oslo?", version=old.name, choice=old.name)
    # a locked version is discarded as well
    Adapter.objects.update(**{"discarded_at": timezone.now(), gone: timezone.now()})

    with pytest.raises(UserError, match="choose another version"):
        turn_begin(conversation=chat, text="And Paris?")
    with pytest.raises(UserError, match="choose another version"):
        turn_again(turn=chat.turns.get())
    answered = as_user(viewer).post(
        url("conversation-send", chat), {"text": "And Paris?"}, headers=STREAM
    )
    assert (answered.status_code, chat.turns.count()) == (422, 1)
    assert old.name in answered.content.decode()

    comparison = Comparison.objects.create(
        project=project, user=viewer, question="?", left_version="base", right_version=old.name
    )
    with pytest.raises(UserError, match="cannot be used"):
        side_stream(comparison=comparison, side="right")


def test_new_conversation_does_not_begin_with_a_discarded_version(
    project: Project, viewer: User, as_user: As
) -> None:
    old = released(project, 1, days_ago=3, until=2)
    unused = Conversation.objects.create(project=project, user=viewer, choice=old.name)
    Adapter.objects.update(discarded_at=timezone.now())

    as_user(viewer).post(reverse("conversation-new", args=[project.slug]), {"text": ""})

    unused.refresh_from_db()
    assert unused.choice == "live"
