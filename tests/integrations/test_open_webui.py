"""Open WebUI's functions against the real gateway: an answer of `live`, then its thumb."""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from pytest_django.live_server_helper import LiveServer

from feedback_app.accounts.models import ApiPerson, Scope, User
from feedback_app.feedback.models import Completion, Project, Vote
from feedback_app.feedback.tokens.services import token_create

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
FOLDER = Path(__file__).parents[2] / "integrations" / "open_webui"
ADA = {"id": "user-1", "name": "Ada", "role": "user"}


def function(name: str) -> ModuleType:
    """Load a function as Open WebUI does: from its source, without a package."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def secret(served: Project, admin: User) -> str:
    scopes = [Scope.CHAT, Scope.FEEDBACK]
    return token_create(project=served, name="Open WebUI", scopes=scopes, by=admin)[1]


@pytest.fixture
def pipe(live_server: LiveServer, secret: str) -> Any:
    made = function("prospect_pipe").Pipe()
    made.valves.base_url, made.valves.api_key = f"{live_server.url}/v1", secret
    return made


@pytest.fixture
def events(live_server: LiveServer, secret: str) -> Any:
    made = function("prospect_feedback").Event()
    made.valves.base_url, made.valves.api_key = f"{live_server.url}/v1", secret
    return made


def ask(pipe: Any, *, stream: bool, message: str = "m1", **fields: Any) -> str:
    """Ask as Open WebUI does, and return what the reader sees."""
    body = {
        "model": "prospect.live",
        "stream": stream,
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "Hello?"}]},
        ],
        "max_tokens": 8,
        **fields,
    }

    async def read() -> str:
        answer: AsyncIterator[str] | str = await pipe.pipe(
            body, __user__=ADA, __metadata__={"message_id": message, "chat_id": "c1"}
        )
        return answer if isinstance(answer, str) else "".join([piece async for piece in answer])

    return asyncio.run(read())


def feedback(rating: int, *, message: str = "m1", model: str = "prospect.live") -> dict[str, Any]:
    return {
        "id": "f1",
        "user_id": ADA["id"],
        "type": "rating",
        "data": {"rating": rating, "model_id": model, "reason": "too_long", "comment": "Shorter!"},
        "meta": {"message_id": message, "chat_id": "c1"},
    }


def give(events: Any, said: dict[str, Any], name: str = "feedback.created") -> None:
    event = {"event": name, "subject": {"type": "feedback", "id": "f1"}, "data": said}
    asyncio.run(events.event(event, __event_name__=name, __id__="prospect_feedback"))


@pytest.mark.parametrize("stream", [True, False])
def test_pipe_answers_as_live_and_stores_the_answer(pipe: Any, stream: bool) -> None:
    text = ask(pipe, stream=stream)

    completion = Completion.objects.get()
    assert text == completion.text != ""
    assert completion.message_id == "m1"
    assert completion.user_group == "Open WebUI"
    assert completion.system_prompt == "Be kind."
    assert completion.prompt.messages == [{"role": "user", "content": "Hello?"}]


def test_thumb_becomes_the_vote_of_its_person(pipe: Any, events: Any) -> None:
    ask(pipe, stream=True)

    give(events, feedback(1))
    give(events, feedback(-1), name="feedback.updated")

    vote = Vote.objects.get()
    assert (vote.verdict, vote.source) == ("down", "api")
    assert vote.comment == "too_long: Shorter!"
    assert ApiPerson.objects.get(name="user-1").user == vote.user


def test_answer_that_was_generated_again_gets_the_thumb(pipe: Any, events: Any) -> None:
    for _ in range(2):
        ask(pipe, stream=True)

    give(events, feedback(1))

    assert Vote.objects.get().completion == Completion.objects.latest("pk")


def test_other_models_and_other_events_are_left_alone(pipe: Any, events: Any) -> None:
    ask(pipe, stream=True)

    give(events, feedback(1, model="llama3"))
    give(events, feedback(1), name="chat.deleted")
    give(events, feedback(0))

    assert not Vote.objects.exists()


def test_feedback_is_looked_up_where_the_event_names_only_its_id(
    pipe: Any, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open WebUI is no dependency: its table of feedback is stood in for."""

    async def get(key: str) -> Any:
        return SimpleNamespace(model_dump=lambda: feedback(1)) if key == "f1" else None

    table = SimpleNamespace(Feedbacks=SimpleNamespace(get_feedback_by_id=get))
    monkeypatch.setitem(sys.modules, "open_webui.models.feedbacks", table)
    ask(pipe, stream=True)

    give(events, {})

    assert Vote.objects.get().verdict == "up"


def test_errors_of_the_gateway_reach_the_reader(pipe: Any, events: Any) -> None:
    assert "temperature" in ask(pipe, stream=True, temperature=9)
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        give(events, feedback(1, message="unknown"))
    pipe.valves.api_key = "wrong"
    assert ask(pipe, stream=False).startswith("Prospect: ")
