"""The demo and the releases page, against a real engine."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.db import connection
from django.http import StreamingHttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.gold.services import gold_mark
from feedback_app.feedback.models import Completion, Pause, Project, Source, Verdict, Vote
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.serving.demo.conversations import turn_begin, turn_stream
from feedback_app.serving.demo.events import turn_events
from feedback_app.serving.demo.generation import EMPTY_ANSWER, demo_sampling
from feedback_app.serving.engine.client import Engine, EngineError
from feedback_app.serving.models import Conversation, Release, Turn
from feedback_app.serving.releases.figures import up_rate, up_rates
from feedback_app.serving.releases.services import release_promote
from tests.served import MakeAdapter

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

As = Callable[[User], Client]
STREAM = {"Accept": "text/event-stream"}


@pytest.mark.parametrize("longest", [16, 700])
def test_demo_answers_are_as_long_as_the_project_says(project: Project, longest: int) -> None:
    project.max_tokens = longest
    assert demo_sampling(project).max_tokens == longest


def url(name: str, project: Project, *args: Any) -> str:
    return reverse(name, args=[project.slug, *args])


@pytest.fixture
def conversation(served: Project, viewer: User) -> Conversation:
    return Conversation.objects.create(project=served, user=viewer)


@pytest.fixture
def answered(conversation: Conversation) -> Turn:
    """A conversation with one answer of the base model."""
    turn = turn_begin(conversation=conversation, text="Where is Paris?")
    list(turn_stream(turn=turn))
    turn.refresh_from_db()
    assert turn.completion is not None
    return turn


def events(response: StreamingHttpResponse) -> list[tuple[str, dict[str, Any]]]:
    text = b"".join(response.streaming_content).decode()  # type: ignore[arg-type]
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    return [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data in blocks
    ]


# -- chat


def test_demo_empty_offers_versions_and_a_form(served: Project, viewer: User, as_user: As) -> None:
    page = as_user(viewer).get(url("demo", served)).content.decode()

    assert "Talk to base" in page
    assert "live (now base)" in page


def test_send_plain_form_answers_and_shows_thumbs(
    conversation: Conversation, viewer: User, as_user: As
) -> None:
    target = url("conversation-send", conversation.project, conversation.pk)

    page = as_user(viewer).post(target, {"text": "Hello?"}, follow=True).content.decode()

    turn = Turn.objects.get()
    assert turn.completion is not None
    assert turn.completion.version == "base"
    assert turn.completion.token_ids
    assert "Hello?" in page
    assert f'id="thumbs-{turn.completion_id}"' in page


def test_send_streams_pieces_then_the_rendered_answer(
    conversation: Conversation, viewer: User, as_user: As
) -> None:
    target = url("conversation-send", conversation.project, conversation.pk)

    response = as_user(viewer).post(target, {"text": "Hello?"}, headers=STREAM)
    got = events(response)

    turn = Turn.objects.get()
    names = [name for name, _ in got]
    assert names[0] == "turn"
    assert names[-1] == "done"
    assert set(names[1:-1]) == {"piece"}
    assert "".join(data["text"] for _, data in got[1:-1]) == turn.completion.text
    assert got[-1][1]["completion"] == turn.completion_id
    assert "hx-disable" in got[-1][1]["html"]
    assert response["X-Accel-Buffering"] == "no"


#: Line separators to Python but not to text/event-stream; JSON need not escape them.
ODD = "one\x85two\u2028three\u2029 four"


@pytest.fixture
def peer(conversation: Conversation, settings: Settings) -> Iterator[list[str]]:
    """Another engine for the project: it answers with the data lines in this list."""
    lines: list[str] = []

    class Peer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for line in lines:
                self.wfile.write(f"data: {line}\n\n".encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Peer) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        settings.ENGINES = {conversation.project.base_model: address}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield lines
        server.shutdown()


def chunk(text: str, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish, "token_ids": [2]}
    return json.dumps({"choices": [choice]}, ensure_ascii=False)


def test_empty_answer_shows_an_error_and_is_not_stored(
    conversation: Conversation, peer: list[str], viewer: User, as_user: As
) -> None:
    peer += [chunk("", "stop"), "[DONE]"]
    target = url("conversation-send", conversation.project, conversation.pk)
    got = events(as_user(viewer).post(target, {"text": "Hello?"}, headers=STREAM))
    assert got[-1][0] == "done"
    assert EMPTY_ANSWER in got[-1][1]["html"]
    assert "Try again" in got[-1][1]["html"]
    assert Turn.objects.get().error == EMPTY_ANSWER
    assert not Completion.objects.exists()


def test_answer_with_unicode_line_separators_is_complete(
    conversation: Conversation, peer: list[str], viewer: User, as_user: As
) -> None:
    peer += [chunk(ODD), chunk(ODD, "stop"), "[DONE]"]
    target = url("conversation-send", conversation.project, conversation.pk)
    got = events(as_user(viewer).post(target, {"text": "Hello?"}, headers=STREAM))
    assert [data["text"] for name, data in got if name == "piece"] == [ODD, ODD]
    assert Completion.objects.get().text == ODD * 2


def test_engine_that_sends_invalid_json_shows_an_error(
    conversation: Conversation, peer: list[str], viewer: User, as_user: As
) -> None:
    peer += [chunk("Half"), '{"choices": [']
    target = url("conversation-send", conversation.project, conversation.pk)
    got = events(as_user(viewer).post(target, {"text": "Hello?"}, headers=STREAM))
    assert got[-1][0] == "error"
    assert Turn.objects.get().completion.finish_reason == "aborted"


def test_new_conversation_with_a_first_message_streams_and_names_its_page(
    served: Project, viewer: User, as_user: As
) -> None:
    body = {"text": "Hello?", "choice": "base"}

    got = events(as_user(viewer).post(url("conversation-new", served), body, headers=STREAM))

    conversation = Conversation.objects.get()
    assert got[0][1]["url"] == url("conversation", served, conversation.pk)
    assert conversation.choice == "base"
    assert conversation.title == "Hello?"


def test_new_conversation_asks_the_engine_after_few_queries(
    served: Project, viewer: User, as_user: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is asked early: queries before the first token delay it."""
    client, opened = as_user(viewer), Engine._open
    before: list[int] = []

    def noted(*args: Any) -> Any:
        before.append(len(asked))
        return opened(*args)

    monkeypatch.setattr(Engine, "_open", noted)
    with CaptureQueriesContext(connection) as asked:
        events(client.post(url("conversation-new", served), {"text": "Hello?"}, headers=STREAM))
    # session, person, member; a place among the open answers (2); an empty conversation; a split
    assert before[0] <= 7
    assert Turn.objects.get().completion is not None


def test_first_message_is_stored_before_its_conversation_is_announced(
    served: Project, viewer: User, as_user: As
) -> None:
    """The page sends its next message to the announced URL: it must not be a 404."""
    response = as_user(viewer).post(
        url("conversation-new", served), {"text": "Hello?"}, headers=STREAM
    )
    coming = response.streaming_content
    assert b"event: turn" in next(coming)
    turn = Turn.objects.get()
    assert b"event: piece" in next(coming)
    assert (turn.user_message, turn.position, turn.completion) == ("Hello?", 0, None)
    list(coming)
    assert Turn.objects.get().completion is not None


def test_first_message_refused_by_the_engine_is_stored_with_the_reason(
    served: Project, viewer: User, as_user: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: Any) -> Any:
        raise EngineError("The queue is full.", status=429)

    monkeypatch.setattr(Engine, "_open", refused)
    got = events(
        as_user(viewer).post(url("conversation-new", served), {"text": "Hello?"}, headers=STREAM)
    )
    assert [name for name, _ in got] == ["turn", "error"]
    turn = Turn.objects.get()
    assert (turn.user_message, turn.error) == ("Hello?", "The queue is full.")
    assert got[0][1]["url"] == url("conversation", served, turn.conversation_id)


def test_refused_new_conversation_stores_nothing(
    served: Project, viewer: User, as_user: As
) -> None:
    body = {"text": "a" * 8_001}
    response = as_user(viewer).post(url("conversation-new", served), body, headers=STREAM)
    assert response.status_code == 400
    assert not Conversation.objects.exists()


def test_empty_conversation_is_reused(
    conversation: Conversation, viewer: User, as_user: As
) -> None:
    as_user(viewer).post(url("conversation-new", conversation.project))

    assert Conversation.objects.count() == 1


def test_stream_closed_by_the_client_stores_the_partial_answer(conversation: Conversation) -> None:
    turn = turn_begin(conversation=conversation, text="Tell me a long story.")
    stream = turn_events(turn, rendered=lambda done: "")
    assert isinstance(stream, Iterator)
    next(stream)
    piece = json.loads(next(stream).split("data: ")[1])["text"]

    stream.close()  # type: ignore[attr-defined]

    turn.refresh_from_db()
    assert turn.completion is not None
    assert turn.completion.finish_reason == "aborted"
    assert turn.completion.text.startswith(piece)


def test_send_with_engine_unreachable_shows_an_error_and_can_be_retried(
    conversation: Conversation, viewer: User, as_user: As, settings: Settings
) -> None:
    client = as_user(viewer)
    engines = settings.ENGINES
    settings.ENGINES = {conversation.project.base_model: "http://127.0.0.1:9"}
    target = url("conversation-send", conversation.project, conversation.pk)

    got = events(client.post(target, {"text": "Hello?"}, headers=STREAM))
    page = client.get(url("conversation", conversation.project, conversation.pk)).content

    assert got[-1][0] == "error"
    assert "does not answer" in got[-1][1]["message"]
    assert b"Try again" in page
    settings.ENGINES = engines
    turn = Turn.objects.get()
    client.post(url("turn-again", conversation.project, conversation.pk, turn.pk))
    turn.refresh_from_db()
    assert turn.completion is not None
    assert turn.error == ""


def test_retry_with_another_question_keeps_the_last_turn_as_a_branch(
    answered: Turn, viewer: User, as_user: As
) -> None:
    conversation = answered.conversation
    target = url("turn-again", conversation.project, conversation.pk, answered.pk)

    as_user(viewer).post(target, {"text": "Where is Rome?"})

    [turn] = conversation.turns.shown()
    assert turn.user_message == "Where is Rome?"
    assert turn.completion_id not in (None, answered.completion_id)
    answered.refresh_from_db()
    assert (answered.position, answered.user_message) == (None, "Where is Paris?")
    assert answered.completion_id is not None


def test_conversation_marks_a_change_of_version(answered: Turn, viewer: User, as_user: As) -> None:
    conversation = answered.conversation
    newer = turn_begin(conversation=conversation, text="And Rome?")
    Turn.objects.filter(pk=newer.pk).update(completion=copy_of(answered, version="bot@2"))

    page = as_user(viewer).get(url("conversation", conversation.project, conversation.pk))

    assert page.content.decode().count("answers from here on") == 1
    assert b"bot@2 answers from here on" in page.content


def copy_of(turn: Turn, *, version: str) -> Completion:
    completion = Completion.objects.get(pk=turn.completion_id)
    completion.pk = None
    completion.version = version
    completion.save()
    return completion


@pytest.mark.parametrize(
    ("body", "why"),
    [({"text": "  "}, "Write something"), ({"text": "x" * 8001}, "8,000 characters")],
)
def test_send_bad_message_is_refused(
    body: dict[str, str], why: str, conversation: Conversation, viewer: User, as_user: As
) -> None:
    target = url("conversation-send", conversation.project, conversation.pk)

    answer = as_user(viewer).post(target, body, headers=STREAM)

    assert answer.status_code == 422
    assert why in answer.content.decode()
    assert not Turn.objects.exists()


def test_send_unknown_field_is_refused(
    conversation: Conversation, viewer: User, as_user: As
) -> None:
    target = url("conversation-send", conversation.project, conversation.pk)

    assert as_user(viewer).post(target, {"text": "x", "role": "system"}).status_code == 400
    assert not Turn.objects.exists()


def test_choose_any_version_answers_with_it(
    conversation: Conversation, viewer: User, as_user: As, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    project, client = conversation.project, as_user(viewer)

    client.post(url("conversation-choose", project, conversation.pk), {"choice": adapter.name})
    client.post(url("conversation-send", project, conversation.pk), {"text": "Hello?"})
    refused = client.post(
        url("conversation-choose", project, conversation.pk), {"choice": "other@1"}
    )

    assert Turn.objects.get().completion.version == adapter.name
    assert refused.status_code == 400


def test_conversation_of_another_person_is_404(
    answered: Turn, admin: User, outsider: User, as_user: As
) -> None:
    conversation, project = answered.conversation, answered.conversation.project

    for person in (admin, outsider):
        client = as_user(person)
        assert client.get(url("conversation", project, conversation.pk)).status_code == 404
        for name, args in (
            ("conversation-send", ()),
            ("conversation-choose", ()),
            ("turn-again", (answered.pk,)),
        ):
            target = url(name, project, conversation.pk, *args)
            assert client.post(target, {"text": "x"}).status_code == 404
        for name in ("demo-vote", "demo-undo"):
            target = url(name, project, answered.completion_id)
            assert client.post(target, {"verdict": "up"}).status_code == 404
    assert not Vote.objects.exists()


def test_turn_of_another_conversation_is_404(answered: Turn, viewer: User, as_user: As) -> None:
    project = answered.conversation.project
    other = Conversation.objects.create(project=project, user=viewer)

    target = url("turn-again", project, other.pk, answered.pk)

    assert as_user(viewer).post(target).status_code == 404
    missing = url("conversation", project, uuid.uuid4())
    assert as_user(viewer).get(missing).status_code == 404


def test_conversation_queries_do_not_grow_with_turns(
    answered: Turn, viewer: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    for position in range(1, 8):
        Turn.objects.create(
            conversation=answered.conversation,
            position=position,
            user_message="And then?",
            completion=answered.completion,
        )
    client = as_user(viewer)
    target = url("conversation", answered.conversation.project, answered.conversation_id)

    with django_assert_max_num_queries(11):
        client.get(target)


# -- thumbs


def test_demo_thumb_is_a_vote_and_can_be_changed_and_undone(
    answered: Turn, viewer: User, as_user: As
) -> None:
    project, client = answered.conversation.project, as_user(viewer)
    target = url("demo-vote", project, answered.completion_id)
    htmx = {"HX-Request": "true"}

    up = client.post(target, {"verdict": "up"}, headers=htmx).content.decode()
    vote = Vote.objects.get()
    assert (vote.verdict, vote.source, vote.user) == ("up", "demo", viewer)
    assert up.count('aria-pressed="true"') == 1
    assert "Concise" in up

    client.post(target, {"verdict": "down", "reasons": ["wrong"], "chips": "on"})
    vote.refresh_from_db()
    assert (vote.verdict, vote.reasons) == ("down", ["wrong"])

    gone = client.post(url("demo-undo", project, answered.completion_id), headers=htmx)
    assert not Vote.objects.exists()
    assert b'aria-pressed="true"' not in gone.content


def test_demo_answer_can_be_corrected(answered: Turn, viewer: User, as_user: As) -> None:
    project, client = answered.conversation.project, as_user(viewer)
    target = url("demo-vote", project, answered.completion_id)
    htmx = {"HX-Request": "true"}
    page = reverse("conversation", args=[project.slug, answered.conversation_id])
    assert "Correct the answer" in client.get(page).content.decode()
    assert (
        "Correct the answer"
        not in client.post(target, {"verdict": "up"}, headers=htmx).content.decode()
    )
    assert (
        "Correct the answer"
        in client.post(target, {"verdict": "down"}, headers=htmx).content.decode()
    )

    fields = {"verdict": "down", "correction": "As it should be."}
    shown = client.post(target, fields, headers=htmx).content.decode()
    assert "Corrected" in shown
    assert "As it should be." in shown
    written = Completion.objects.get(version="edited")
    assert (written.source, written.text) == ("demo", "As it should be.")
    votes = dict(Vote.objects.values_list("completion_id", "verdict"))
    assert votes == {answered.completion_id: "down", written.pk: "up"}


def test_demo_vote_on_an_annotation_answer_is_404(
    served: Project, viewer: User, as_user: As, make_completions: Any
) -> None:
    [completion] = make_completions()

    answer = as_user(viewer).post(url("demo-vote", served, completion.pk), {"verdict": "up"})

    assert answer.status_code == 404


# -- releases


def test_release_by_button_flips_and_shows_the_timeline(
    served: Project, make_adapter: MakeAdapter, admin: User, as_user: As
) -> None:
    adapter = make_adapter(2)
    client = as_user(admin)

    page = client.post(
        url("release", served, adapter.name), {"reason": "reads well"}, follow=True
    ).content.decode()

    served.refresh_from_db()
    assert served.live_version == adapter.name
    assert f"{adapter.name} is live now" in page
    assert "“reads well”" in page
    back = client.post(url("release", served, "base"), follow=True)
    served.refresh_from_db()
    assert served.live_version == "base"
    assert b"Make live again" in back.content
    assert Release.objects.count() == 2


def test_release_with_engine_unreachable_changes_nothing_and_shows_an_error(
    served: Project, make_adapter: MakeAdapter, admin: User, as_user: As, settings: Settings
) -> None:
    adapter = make_adapter(2)
    settings.ENGINES = {served.base_model: "http://127.0.0.1:9"}

    page = as_user(admin).post(url("release", served, adapter.name), follow=True)

    assert b"does not answer" in page.content
    assert not Release.objects.exists()


def test_release_of_another_projects_adapter_is_404(
    served: Project, make_adapter: MakeAdapter, outsider: User, as_user: As
) -> None:
    adapter = make_adapter(2)
    other = Project.objects.get(slug="other")

    assert as_user(outsider).post(url("release", other, adapter.name)).status_code == 404
    assert as_user(outsider).post(url("release", served, adapter.name)).status_code == 404


def test_release_annotator_gets_403(
    served: Project, make_adapter: MakeAdapter, annotator: User, as_user: As
) -> None:
    adapter = make_adapter(2)

    assert as_user(annotator).post(url("release", served, adapter.name)).status_code == 403
    assert not Release.objects.exists()


def test_releases_show_the_up_rate_of_each_version(
    served: Project, admin: User, annotator: User, as_user: As, make_completions: Any
) -> None:
    for number, completion in enumerate(make_completions(10)):
        verdict = Verdict.UP if number < 3 else Verdict.DOWN
        vote_cast(completion=completion, verdict=verdict, by=annotator, source=Source.ANNOTATE)

    page = as_user(admin).get(url("releases", served)).content.decode()

    # Wilson's interval of 3 of 10 at 95 %: 0.108 to 0.603
    assert "<strong>30 %</strong> up of 10" in page
    assert "(95 %: 11 % to 60 %)" in page


def test_up_rate_excludes_gold_and_votes_set_aside(
    project: Project, admin: User, annotator: User, make_completions: Any
) -> None:
    gold, aside, kept = make_completions(3)
    gold_mark(completion=gold, verdict=Verdict.UP, why="", by=admin)
    for completion in (gold, aside, kept):
        vote_cast(completion=completion, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    pause = Pause.objects.create(project=project, user=annotator, right=0, of=3)
    Vote.objects.filter(completion=aside).update(set_aside=pause)

    assert up_rates(project).by_version["base"].votes == 1


def test_up_rate_has_wilsons_interval() -> None:
    rate = up_rate(3, 10)

    assert (rate.low, rate.high) == pytest.approx((0.1078, 0.6032), abs=1e-4)


def test_releases_queries_do_not_grow_with_versions(
    served: Project,
    make_adapter: MakeAdapter,
    admin: User,
    as_user: As,
    django_assert_max_num_queries: Any,
) -> None:
    for number in range(1, 5):
        release_promote(project=served, adapter=make_adapter(number), by=admin)
    client = as_user(admin)
    assert Completion.objects.count() == 0

    with django_assert_max_num_queries(16):
        client.get(url("releases", served))
