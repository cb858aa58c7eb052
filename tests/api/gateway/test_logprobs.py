"""Log-probabilities in the gateway's answers, from the real engine."""

import math
from typing import Any

import pytest

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.models import Project
from feedback_app.feedback.tokens.services import token_create
from tests.api.gateway.test_chat import chunks
from tests.api.gateway_client import Program, fault

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture
def program(served: Project, admin: User) -> Program:
    return Program(*token_create(project=served, name="Shop", scopes=list(Scope), by=admin))


def entries(choice: dict[str, Any]) -> list[dict[str, Any]]:
    found = choice.get("logprobs")  # the first event of a stream has none
    return found["content"] if found else []


def test_answer_has_a_logprob_for_each_token(program: Program) -> None:
    answer = program.ask(temperature=0, logprobs=True, top_logprobs=3).json()

    found = entries(answer["choices"][0])
    assert len(found) == answer["usage"]["completion_tokens"] == 8
    for entry in found:
        likeliest = entry["top_logprobs"][0]
        assert len(entry["top_logprobs"]) == 3
        assert entry["logprob"] <= 0
        assert math.isclose(entry["logprob"], likeliest["logprob"])  # greedy
        assert entry["token"] == likeliest["token"]


def test_stream_carries_the_same_logprobs(program: Program) -> None:
    whole = program.ask(temperature=0, logprobs=True).json()

    pieces = chunks(program.ask(temperature=0, logprobs=True, stream=True))

    streamed = [entry for piece in pieces for entry in entries(piece["choices"][0])]
    assert [entry["token"] for entry in streamed] == [
        entry["token"] for entry in entries(whole["choices"][0])
    ]
    assert all(entry["top_logprobs"] == [] for entry in streamed)


def test_answer_has_none_unless_asked(program: Program) -> None:
    assert program.ask(temperature=0).json()["choices"][0]["logprobs"] is None
    for piece in chunks(program.ask(temperature=0, stream=True)):
        assert "logprobs" not in piece["choices"][0]


@pytest.mark.parametrize(
    "fields",
    [{"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 21}, {"logprobs": 5}],
)
def test_what_is_not_possible_is_refused(fields: dict[str, Any], program: Program) -> None:
    assert fault(program.ask(**fields))[0] == 400
