"""What readers do after an answer is stored where the project allows it, and deleted with them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import ApiPerson, Scope, User
from feedback_app.feedback.models import Completion, FollowUp, Project, Source
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.feedback.tokens.services import token_create
from feedback_app.privacy.erasure import person_erase, runs_with
from feedback_app.privacy.export import person_json
from feedback_app.serving.conversation_log.removal import conversations_expire
from feedback_app.serving.demo.conversations import turn_begin, turn_stream
from feedback_app.serving.follow_ups.services import follow_up_record, said_by, similarity
from feedback_app.serving.models import Conversation, ShareVisitor, Turn
from feedback_app.serving.share_links.services import link_create, visitor_create
from feedback_app.training.models import Run, Snapshot
from tests.api.gateway_client import HELLO, Program, hang_up

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
Kind = FollowUp.Kind


@pytest.mark.parametrize(
    ("text", "after", "kind"),
    [
        ("Thanks!", "How do I boil rice?", Kind.THANKED),
        ("Vielen Dank? Danke dir", "How?", Kind.THANKED),
        ("How do I boil brown rice?", "How do I boil rice?", Kind.REPHRASED),
        ("How do I boil rice?", "How do I boil rice?", Kind.REPHRASED),
        ("And what is the capital of France?", "How do I boil rice?", None),
        (
            "Thanks to the weather we stay at home today, so tell me what to cook",
            "How do I boil rice?",
            None,
        ),
        ("", "How?", None),
        ("???", "!!!", None),
    ],
)
def test_next_message_is_understood(text: str, after: str, kind: Kind | None) -> None:
    assert said_by(text, after=after) == kind


def test_similarity_of_huge_messages_is_bounded() -> None:
    assert similarity("word " * 8_000, "word " * 8_000) == 1


def chat_of(project: Project, user: User, question: str = "How do I boil rice?") -> Turn:
    """Return the turn of a demo answer of this person."""
    conversation = Conversation.objects.create(project=project, user=user, title=question)
    completion = completion_create(
        project=project,
        prompt=prompt_get_or_create(
            project=project,
            messages=[{"role": "user", "content": question}],
            source=Source.DEMO,
        ),
        answer=Answer(
            text="Twelve minutes.",
            version="base",
            finish_reason="stop",
            prompt_token_ids=None,
            token_ids=None,
        ),
        source=Source.DEMO,
    )
    return Turn.objects.create(
        conversation=conversation, position=0, user_message=question, completion=completion
    )


@pytest.fixture
def turn(project: Project, viewer: User) -> Turn:
    Project.objects.update(follow_ups=True)
    project.refresh_from_db()
    return chat_of(project, viewer)


def copied(client: Client, completion: Completion) -> int:
    url = reverse("demo-copied", args=["bot", completion.pk])
    return client.post(url).status_code


def answer_of(turn: Turn) -> Completion:
    assert turn.completion is not None
    return turn.completion


def test_copied_answer_is_recorded_once(turn: Turn, viewer: User, as_user: As) -> None:
    client = as_user(viewer)

    assert [copied(client, answer_of(turn)) for _ in range(2)] == [204, 204]

    [found] = FollowUp.objects.all()
    assert (found.completion, found.user, found.kind) == (turn.completion, viewer, "copied")


def test_nothing_is_stored_while_it_is_off(turn: Turn, viewer: User, as_user: As) -> None:
    Project.objects.update(follow_ups=False)

    assert copied(as_user(viewer), answer_of(turn)) == 204

    assert not FollowUp.objects.exists()


def test_answers_of_others_cannot_be_marked(
    turn: Turn, annotator: User, outsider: User, as_user: As
) -> None:
    for user in (annotator, outsider):
        assert copied(as_user(user), answer_of(turn)) == 404
    assert not FollowUp.objects.exists()


def test_visitors_of_share_links_leave_none(turn: Turn, admin: User) -> None:
    project = turn.conversation.project
    link, _ = link_create(
        project=project,
        label="Board",
        choice="live",
        days=7,
        messages_limit=9,
        messages_each=9,
        votes_limit=9,
        by=admin,
    )
    visitor = visitor_create(link=link)
    user = visitor.user if isinstance(visitor, ShareVisitor) else visitor

    follow_up_record(completion=answer_of(turn), user_id=user.pk, kind=Kind.COPIED)

    assert not FollowUp.objects.exists()


def test_demo_says_what_is_learned_from(turn: Turn, viewer: User, as_user: As) -> None:
    client, url = as_user(viewer), reverse("demo", args=["bot"])
    assert "This project also learns from what you do next" in client.get(url).content.decode()

    Project.objects.update(follow_ups=False)
    page = client.get(url).content.decode()
    assert "also learns" not in page
    assert "copied/" not in page


def test_export_and_erasure_include_them(turn: Turn, viewer: User, as_user: As) -> None:
    copied(as_user(viewer), answer_of(turn))
    assert '"kind": "copied"' in "".join(person_json(viewer))

    person_erase(user=viewer, by=None, project=turn.conversation.project)

    assert not FollowUp.objects.exists()


def test_retention_removes_them_with_the_conversation(
    turn: Turn, viewer: User, as_user: As
) -> None:
    copied(as_user(viewer), answer_of(turn))
    Project.objects.update(conversation_days=7)
    long_ago = timezone.now() - timedelta(days=30)
    Conversation.objects.update(updated_at=long_ago)

    conversations_expire(turn.conversation.project_id)

    assert not FollowUp.objects.exists()
    assert not Completion.objects.filter(pk=answer_of(turn).pk).exists()


def test_erasure_finds_the_runs_that_had_learned_from_them(
    turn: Turn, viewer: User, annotator: User
) -> None:
    project = turn.conversation.project
    other = chat_of(project, annotator)  # the question is not only theirs
    snapshot = Snapshot.objects.create(project=project, train_up=1, train_down=0)
    for each in (turn, other):
        snapshot.items.create(
            completion=answer_of(each), desirable=True, weight=0.1, split="train", implicit=True
        )
    Run.objects.create(
        project=project, number=4, snapshot=snapshot, status="succeeded", trigger="person"
    )
    assert runs_with(project=project, user=viewer) == [4]

    person_erase(user=viewer, by=None, project=project)

    [left] = snapshot.items.all()
    assert left.completion == other.completion


# -- with an engine


@pytest.fixture
def answered(served: Project, viewer: User) -> Turn:
    Project.objects.update(follow_ups=True)
    served.refresh_from_db()
    conversation = Conversation.objects.create(project=served, user=viewer)
    found = turn_begin(conversation=conversation, text="Where is Paris?")
    list(turn_stream(turn=found))
    found.refresh_from_db()
    return found


def kinds(completion: Completion | None) -> set[str]:
    return set(FollowUp.objects.filter(completion=completion).values_list("kind", flat=True))


@pytest.mark.slow
def test_regenerated_answer_is_recorded(answered: Turn, viewer: User, as_user: As) -> None:
    chat = answered.conversation_id
    as_user(viewer).post(reverse("turn-again", args=["bot", chat, answered.pk]))

    assert kinds(answered.completion) == {"again"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "expected"),
    [("Thank you", {"thanked"}), ("Where is Paris exactly?", {"rephrased"}), ("And Rome?", set())],
)
def test_next_question_is_recorded(
    answered: Turn, viewer: User, as_user: As, text: str, expected: set[str]
) -> None:
    url = reverse("conversation-send", args=["bot", answered.conversation_id])
    as_user(viewer).post(url, {"text": text})

    assert kinds(answered.completion) == expected


@pytest.mark.slow
def test_stopped_answer_is_recorded(answered: Turn) -> None:
    turn = turn_begin(conversation=answered.conversation, text="And the river?")
    pieces = turn_stream(turn=turn)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined] # a generator

    turn.refresh_from_db()
    assert kinds(turn.completion) == {"stopped"}


@pytest.fixture
def program(served: Project, admin: User) -> Program:
    Project.objects.update(follow_ups=True)
    return Program(*token_create(project=served, name="Shop", scopes=list(Scope), by=admin))


def text_of(answer: Any) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.slow
def test_gateway_records_what_a_products_user_does_next(program: Program) -> None:
    first = program.ask(temperature=0, user="jo")
    [completion] = Completion.objects.all()
    said = [*HELLO, {"role": "assistant", "content": text_of(first)}]
    program.ask(temperature=0, user="jo", messages=[*said, {"role": "user", "content": "thanks"}])
    program.ask(temperature=0, user="jo")

    assert kinds(completion) == {"thanked", "again"}
    assert {each.user for each in FollowUp.objects.all()} == {ApiPerson.objects.get().user}


@pytest.mark.slow
def test_gateway_records_a_stream_that_the_product_closes(program: Program) -> None:
    response = program.ask(stream=True, user="jo", max_tokens=200)
    iterator = iter(response.streaming_content)
    for _ in range(4):
        next(iterator)
    hang_up(response)

    [completion] = Completion.objects.all()
    assert completion.finish_reason == "aborted"
    assert kinds(completion) == {"stopped"}
