"""What a product's users write to the gateway is listed as conversations of these users."""

import threading
from collections.abc import Callable, Iterator

import pytest
from django.db import connection, transaction

from feedback_app.accounts.models import ApiPerson, Scope, User
from feedback_app.api.gateway import answers
from feedback_app.feedback.models import Completion, Project, Prompt
from feedback_app.feedback.tokens.services import token_create
from feedback_app.privacy.erasure import person_erase
from feedback_app.serving.conversation_log.recording import gateway_turn_record
from feedback_app.serving.demo.branches import branch_show, conversation_lock
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.models import Conversation, Turn
from tests.api.gateway_client import HELLO, Program
from tests.engines import PATIENCE

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture
def program(served: Project, admin: User) -> Program:
    return Program(*token_create(project=served, name="Shop", scopes=list(Scope), by=admin))


def said(answer: object, question: str = "And then?") -> list[dict[str, str]]:
    text = answer.json()["choices"][0]["message"]["content"]  # type: ignore[attr-defined]
    return [*HELLO, {"role": "assistant", "content": text}, {"role": "user", "content": question}]


def test_next_question_goes_on_with_the_conversation(program: Program) -> None:
    first = program.ask(temperature=0, user="jo")
    program.ask(temperature=0, user="jo", messages=said(first))
    program.ask(temperature=0, user="jo", messages=said(first, "Another way?"))

    chat = Conversation.objects.get()
    turns = list(chat.turns.order_by("pk"))
    assert chat.user == ApiPerson.objects.get(name="jo").user
    assert (chat.title, chat.choice) == ("Hello?", "live")
    assert [turn.user_message for turn in turns] == ["Hello?", "And then?", "Another way?"]
    assert [turn.parent for turn in turns] == [None, turns[0], turns[0]]
    assert [turn.position for turn in turns] == [0, None, 1]
    assert all(turn.completion is not None for turn in turns)


def test_other_people_and_other_beginnings_are_other_conversations(program: Program) -> None:
    first = program.ask(temperature=0, user="jo")
    program.ask(temperature=0, user="ann", messages=said(first))
    program.ask(temperature=0, messages=said(first))
    unknown = [*HELLO, {"role": "assistant", "content": "Never said"}, *HELLO]
    program.ask(temperature=0, user="jo", messages=unknown)

    assert Conversation.objects.count() == 4
    assert Conversation.objects.filter(user=program.token.user).count() == 1


def test_conversation_without_room_is_followed_by_another(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedback_app.serving.conversation_log.recording.BRANCHED_LIMIT", 1)
    first = program.ask(temperature=0)
    program.ask(temperature=0, messages=said(first))

    assert Conversation.objects.count() == 2


def test_answer_that_no_client_knows_of_leaves_no_conversation(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*args: object, opened: Callable[[], None], **options: object) -> Iterator[str]:
        opened()
        raise EngineError("The engine is gone.")
        yield ""

    monkeypatch.setattr(answers.Engine, "stream", nothing)
    assert program.ask().status_code == 503

    assert not Completion.objects.exists()
    assert not Turn.objects.exists()
    assert not Conversation.objects.exists()


def test_erased_end_user_leaves_no_question(program: Program) -> None:
    first = program.ask(temperature=0, user="jo")
    program.ask(temperature=0, user="ann", messages=said(first, "Ann's question?"))

    person_erase(user=ApiPerson.objects.get(name="jo").user, by=None)

    assert Prompt.objects.get().messages[-1]["content"] == "Ann's question?"
    assert Completion.objects.count() == Conversation.objects.count() == 1


def test_user_with_a_nul_is_refused(program: Program) -> None:
    assert program.ask(user="a\x00b").status_code == 400
    assert program.ask(user="").status_code == 200
    assert Conversation.objects.get().user == program.token.user


@pytest.mark.django_db(transaction=True)
def test_question_beside_one_that_changes_the_branch_gets_the_next_place(
    program: Program, served: Project
) -> None:
    """What the second question continues is on no branch that is shown until the first commits."""
    first = program.ask(temperature=0, user="jo")
    program.ask(temperature=0, user="jo", messages=said(first))
    other = program.ask(temperature=0, user="jo", messages=said(first, "Another way?"))
    hidden = Turn.objects.get(position=None)
    last = hidden.completion
    assert other.status_code == 200
    assert last is not None
    messages = [*last.prompt.messages, {"role": "assistant", "content": last.text}]
    asked = [*messages, {"role": "user", "content": "And now?"}]
    copy = Completion.objects.create(
        project=served, prompt=last.prompt, text="Now.", version="base", source=last.source
    )
    made: list[Turn | Exception] = []

    def ask() -> None:
        try:
            with transaction.atomic():
                made.append(
                    gateway_turn_record(
                        project=served,
                        user=hidden.conversation.user,
                        messages=asked,
                        completion=copy,
                        choice="live",
                    )
                )
        except Exception as error:
            made.append(error)
        finally:
            connection.close()

    asking = threading.Thread(target=ask)
    with transaction.atomic():
        conversation_lock(hidden.conversation)
        asking.start()
        asking.join(2)  # until it waits for the lock
        branch_show(turn=hidden)
    asking.join(PATIENCE)

    [turn] = made
    assert isinstance(turn, Turn), turn
    shown = turn.conversation.turns.shown()
    assert [each.pk for each in shown][-2:] == [hidden.pk, turn.pk]
    assert [each.position for each in shown] == [0, 1, 2]
