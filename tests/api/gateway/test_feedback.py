"""`POST /v1/feedback`: thumbs of a product's users become votes."""

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from pytest_django import Settings

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.models import Completion, Example, Project, Source, Vote, VoteEvent
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.feedback.tokens.services import token_create
from tests.api.gateway_client import CHAT, FEEDBACK, HELLO, Program, fault

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture
def program(project: Project, admin: User) -> Program:
    scopes = [Scope.FEEDBACK]
    return Program(*token_create(project=project, name="Shop", scopes=scopes, by=admin))


def answer_of(project: Project, *, source: Source = Source.API) -> Completion:
    """Create an answer of the gateway."""
    messages: Any = [{"role": "user", "content": "Hello?"}]
    return completion_create(
        project=project,
        prompt=prompt_get_or_create(project=project, messages=messages, source=source),
        answer=Answer("Hello.", "base", "stop", [1, 2], [3, 4]),
        source=source,
    )


@pytest.fixture
def answer(project: Project) -> Completion:
    return answer_of(project)


def test_thumb_is_stored_as_a_vote_with_its_example(program: Program, answer: Completion) -> None:
    said = program.thumb(
        f"cmpl-{answer.pk}", "down", reasons=["wrong", "long"], comment="No.", user="jo"
    )

    vote = Vote.objects.get()
    assert (vote.verdict, vote.reasons, vote.comment) == ("down", ["wrong", "long"], "No.")
    assert (vote.source, vote.project) == ("api", answer.project)
    assert not Example.objects.get().desirable
    assert said.json() == {
        "object": "feedback",
        "completion_id": answer.pk,
        "verdict": "down",
        "reasons": ["wrong", "long"],
        "comment": "No.",
        "user": "jo",
    }


def test_second_thumb_changes_the_vote_and_a_repeat_does_nothing(
    program: Program, answer: Completion
) -> None:
    for verdict in ("up", "up", "down", "down"):
        assert program.thumb(answer.pk, verdict).status_code == 200

    assert Vote.objects.get().verdict == "down"
    events = VoteEvent.objects.order_by("pk").values_list("verdict", flat=True)
    assert list(events) == ["up", "down"]


def test_thumbs_of_several_people_are_separate_votes(
    program: Program, answer: Completion, project: Project, admin: User
) -> None:
    for verdict, user in (("up", "jo"), ("up", "flo"), ("down", "jo")):
        program.thumb(answer.pk, verdict, user=user)
    program.thumb(answer.pk, "up")
    rotated = token_create(project=project, name="Shop 2", scopes=[Scope.FEEDBACK], by=admin)
    Program(*rotated).thumb(answer.pk, "up", user="jo")

    votes = Vote.objects.order_by("user__name").values_list("user__name", "verdict")
    assert list(votes) == [("Token Shop", "up"), ("flo", "up"), ("jo", "up")]
    answer.refresh_from_db()
    assert answer.vote_count == 3


def test_thumb_on_another_projects_answer_is_404(program: Program, outsider: User) -> None:
    theirs = answer_of(Project.objects.get(slug="other"))

    refused = program.thumb(theirs.pk)

    assert fault(refused) == (404, "completion_not_found", "completion_id")
    missing = program.thumb(theirs.pk + 1)
    message = refused.json()["error"]["message"]
    assert missing.json()["error"]["message"] == message.replace(
        str(theirs.pk), str(theirs.pk + 1)
    ), "the refusal must not reveal that it exists"
    assert not Vote.objects.exists()


@pytest.mark.parametrize("source", [Source.ANNOTATE, Source.DEMO, Source.IMPORT])
def test_thumb_on_an_answer_not_from_the_api_is_404(
    source: Source, program: Program, project: Project
) -> None:
    answer = answer_of(project, source=source)

    assert fault(program.thumb(answer.pk))[0] == 404
    assert not Vote.objects.exists()


def test_whole_float_is_accepted_as_an_id(program: Program, answer: Completion) -> None:
    assert program.thumb(float(answer.pk)).json()["completion_id"] == answer.pk
    assert fault(program.thumb(answer.pk + 0.5)) == (400, "invalid_value", "completion_id")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"weight": 3}, "unknown_parameter"),
        ({"source": "annotate"}, "unknown_parameter"),
        ({"project": "other"}, "unknown_parameter"),
        ({"verdict": "maybe"}, "invalid_value"),
        ({"verdict": ""}, "invalid_value"),
        ({"completion_id": "cmpl-"}, "invalid_value"),
        ({"completion_id": "1 OR 1=1"}, "invalid_value"),
        ({"completion_id": -1}, "invalid_value"),
        ({"completion_id": True}, "invalid_value"),
        ({"reasons": ["nonsense"]}, "invalid_value"),
        ({"reasons": ["clear", "\x00"]}, "invalid_value"),
        ({"comment": "x" * 2_001}, "invalid_value"),
        ({"comment": "a\x00b"}, "invalid_value"),
        ({"user": ""}, "invalid_value"),
        ({"user": "x" * 201}, "invalid_value"),
        ({"user": "a\x00"}, "invalid_value"),
        ({"user": "\ud800"}, "invalid_value"),
        ({"user": {"id": 1}}, "invalid_value"),
    ],
)
def test_invalid_thumb_is_400_and_changes_nothing(
    fields: dict[str, Any], code: str, program: Program, answer: Completion
) -> None:
    people = User.objects.count()
    body = {"completion_id": answer.pk, "verdict": "up", **fields}

    status, said, param = fault(program.post(FEEDBACK, body))

    assert (status, said) == (400, code)
    # a field of the request or the list it is in; the service may refuse a reason without a field
    assert param is None or param.split("[")[0] in fields
    assert not Vote.objects.exists()
    assert User.objects.count() == people


def test_thumb_of_a_known_person_makes_few_queries(
    program: Program, answer: Completion, django_assert_max_num_queries: Any
) -> None:
    program.thumb(answer.pk, "up", user="jo")

    # token, minute, answer, person; lock, vote, event, verdicts, example; lease, skip; savepoints
    with django_assert_max_num_queries(24):
        program.thumb(answer.pk, "down", user="jo")


# -- fuzzing

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANYTHING = st.recursive(
    LEAVES | st.sampled_from(["up", "base", "user", "\x00", "\ud800", 10**30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
VALID = {
    FEEDBACK: {"completion_id": 1, "verdict": "up", "user": "jo"},
    CHAT: {"model": "base", "messages": HELLO, "temperature": 1},
}


@pytest.mark.parametrize("path", VALID)
@hypothesis.settings(
    max_examples=30, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(data=st.data())
def test_any_body_gets_an_answer_that_matches_the_schema(
    path: str, data: st.DataObject, program: Program, settings: Settings
) -> None:
    settings.ENGINES, settings.API_REQUESTS_PER_MINUTE = {}, 1_000_000
    type(program.token).objects.update(scopes=list(Scope))
    change = data.draw(
        ANYTHING | st.dictionaries(st.sampled_from([*VALID[path], "more"]), ANYTHING)
    )
    body = {**VALID[path], **change} if isinstance(change, dict) else change

    answer = program.post(path, json.dumps(body))

    assert answer.status_code in (200, 400, 404, 503)
    if answer.status_code != 200:
        fault(answer)


def test_correction_becomes_an_example_of_its_own(program: Program, answer: Completion) -> None:
    said = program.thumb(answer.pk, "down", correction="Hello! How can I help?", user="jo")
    assert said.status_code == 200
    rows = Example.objects.values_list("completion__text", "desirable")
    assert dict(rows) == {"Hello.": False, "Hello! How can I help?": True}
    assert set(Vote.objects.values_list("source", flat=True)) == {"api"}

    refused = program.thumb(answer.pk, "up", correction="Hi!", user="ann")
    assert refused.status_code == 400
    assert "A correction goes with down" in refused.json()["error"]["message"]
    assert Vote.objects.count() == 2


# -- the product's own ids


def named(project: Project, message_id: str) -> Completion:
    answer = answer_of(project)
    Completion.objects.filter(pk=answer.pk).update(message_id=message_id)
    return answer


def test_answer_can_be_named_by_the_products_own_id(program: Program, project: Project) -> None:
    named(project, "m-1")
    last = named(project, "m-1")
    named(project, "m-2")

    said = program.thumb("message:m-1", "up", user="jo")

    assert said.json()["completion_id"] == last.pk
    assert Vote.objects.get().completion == last


def test_own_ids_of_others_are_unknown(program: Program, project: Project, outsider: User) -> None:
    named(Project.objects.get(slug="other"), "m-1")
    # an answer without an id of its own is not named by an empty one
    answer_of(project)

    assert fault(program.thumb("message:m-1"))[:2] == (404, "completion_not_found")
    for wrong in ("message:", "message:" + "x" * 101, "m-1", "message:a\x00"):
        assert fault(program.thumb(wrong))[:2] == (400, "invalid_value")
    assert not Vote.objects.exists()
