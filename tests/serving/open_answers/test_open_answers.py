"""How many answers a person, token or share link may have generated at the same time."""

import datetime as dt
import threading
from collections.abc import Callable, Iterator

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.models import Project
from feedback_app.feedback.tokens.services import token_create
from feedback_app.serving.models import Comparison, Conversation, OpenAnswer, ShareLink, Turn
from feedback_app.serving.open_answers import services
from feedback_app.serving.open_answers.services import TooManyAnswers, place_take
from feedback_app.serving.share_links.services import link_create
from tests.api.gateway_client import Program, fault

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
STREAM = {"Accept": "text/event-stream"}


def fill(key: str, count: int) -> None:
    for _ in range(count):
        place_take(key, limit=count)


def test_place_is_free_again_when_it_ended() -> None:
    first = place_take("user-1", limit=2)
    place_take("user-1", limit=2)
    place_take("user-2", limit=2)
    with pytest.raises(TooManyAnswers, match="2 answers are being generated already"):
        place_take("user-1", limit=2)

    first.end()

    place_take("user-1", limit=2)
    assert OpenAnswer.objects.count() == 3


def test_place_of_a_killed_process_expires_and_one_in_use_is_renewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill("user-1", 2)
    used = place_take("user-2", limit=1)
    OpenAnswer.objects.update(until=timezone.now() - dt.timedelta(seconds=1))
    monkeypatch.setattr(services, "RENEW_SECONDS", -1.0)

    list(used.hold(iter(["a"])))  # renewed by each piece, and ended
    place_take("user-1", limit=2)

    assert not OpenAnswer.objects.filter(key="user-2").exists()
    assert OpenAnswer.objects.filter(key="user-1", until__gt=timezone.now()).count() == 1


def test_renewal_extends_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_take("user-1", limit=1)
    OpenAnswer.objects.update(until=timezone.now())
    place.renew()
    assert OpenAnswer.objects.get().until <= timezone.now(), "not more often than needed"

    monkeypatch.setattr(services, "RENEW_SECONDS", -1.0)
    place.renew()
    assert OpenAnswer.objects.get().until > timezone.now()


def pieces(closed: list[str]) -> Iterator[str]:
    try:
        yield "one"
        yield "two"
    finally:
        closed.append("closed")


@pytest.mark.parametrize("read", [0, 1, 3])
def test_stream_ends_its_place_however_it_ends(read: int) -> None:
    closed: list[str] = []
    with place_take("user-1", limit=1) as place:
        stream = place.hold(pieces(closed))
    assert OpenAnswer.objects.exists()

    for _ in range(read):
        next(stream, None)
    stream.close()

    assert not OpenAnswer.objects.exists()
    assert closed == (["closed"] if read else [])


def test_block_that_fails_ends_its_place() -> None:
    with pytest.raises(ValueError), place_take("user-1", limit=1) as place:
        place.hold(iter([]))
        raise ValueError
    assert not OpenAnswer.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_places_taken_at_the_same_time_stay_within_the_limit() -> None:
    barrier = threading.Barrier(12)
    outcomes: list[str] = []

    def take() -> None:
        barrier.wait(timeout=60)
        try:
            place_take("user-1", limit=5)
            outcomes.append("taken")
        except TooManyAnswers:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=take) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert sorted(outcomes) == ["refused"] * 7 + ["taken"] * 5
    assert OpenAnswer.objects.count() == 5


# -- where it is asked


def test_member_with_too_many_answers_gets_429_and_nothing_is_stored(
    project: Project, viewer: User, as_user: As, settings: Settings
) -> None:
    settings.ANSWERS_PER_PERSON = 1
    fill(f"user-{viewer.pk}", 1)
    client = as_user(viewer)
    chat = Conversation.objects.create(project=project, user=viewer)
    turn = Turn.objects.create(conversation=chat, position=0, user_message="Hello?")
    asked = Comparison.objects.create(
        project=project, user=viewer, question="Q", left_version="base", right_version="bot@1"
    )
    for name, args in (
        ("conversation-new", [project.slug]),
        ("conversation-send", [project.slug, chat.pk]),
        ("turn-again", [project.slug, chat.pk, turn.pk]),
        ("comparison-answer", [project.slug, asked.pk, "left"]),
    ):
        form = {} if name == "comparison-answer" else {"text": "And then?"}
        answer = client.post(reverse(name, args=args), form, headers=STREAM)

        assert answer.status_code == 429, name
        assert answer["Content-Type"].startswith("text/plain")
        assert int(answer["Retry-After"]) > 0
        assert b"being generated already" in answer.content
    turn.refresh_from_db()
    assert (Turn.objects.count(), turn.user_message) == (1, "Hello?")
    # a form without scripts gets the message as well
    page = client.post(
        reverse("conversation-send", args=[project.slug, chat.pk]), {"text": "Hi"}, follow=True
    )
    assert b"being generated already" in page.content


@pytest.mark.parametrize("stream", [True, False])
def test_token_with_too_many_answers_gets_429(
    project: Project, admin: User, settings: Settings, *, stream: bool
) -> None:
    settings.ANSWERS_PER_TOKEN = 1
    token, secret = token_create(project=project, name="Shop", scopes=[Scope.CHAT], by=admin)
    fill(f"token-{token.pk}", 1)

    answer = Program(token, secret).ask(stream=stream)

    assert fault(answer) == (429, "too_many_answers", None)
    assert int(answer["Retry-After"]) > 0


def test_share_link_with_too_many_answers_gets_429_and_counts_no_message(
    project: Project, admin: User, client: Client, settings: Settings
) -> None:
    settings.ANSWERS_PER_LINK = 1
    link, secret = link_create(
        project=project,
        label="trial",
        choice="live",
        days=1,
        messages_limit=10,
        messages_each=5,
        votes_limit=5,
        by=admin,
    )
    fill(f"link-{link.pk}", 1)

    answer = client.post(reverse("shared-send", args=[secret]), {"text": "Hi"}, headers=STREAM)

    assert answer.status_code == 429
    assert int(answer["Retry-After"]) > 0
    assert ShareLink.objects.get().messages_used == 0
