"""If the live version's files are missing or damaged, the last good release answers."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, Scope, User
from feedback_app.feedback.models import Project
from feedback_app.feedback.tokens.services import token_create
from feedback_app.serving.demo.conversations import turn_begin, turn_stream
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.models import Conversation, Release
from feedback_app.serving.releases.services import release_promote
from feedback_app.serving.traffic_splits.services import split_start
from feedback_app.training.models import Adapter
from tests.api.gateway_client import Program
from tests.engines import RunningEngine
from tests.served import MakeAdapter, write_adapter_once

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

Damage = Callable[[Adapter], None]


@pytest.fixture
def three(served: Project, make_adapter: MakeAdapter, admin: User) -> list[Adapter]:
    """Three versions released one after the other; the last one is live."""
    adapters = [make_adapter(number) for number in (11, 12, 13)]
    for adapter in adapters:
        release_promote(project=served, adapter=adapter, by=admin)
    return adapters


@pytest.fixture
def damage(engine: RunningEngine) -> Iterator[Damage]:
    """`damage(adapter)`: unload it from the engine, and overwrite the end of its weights with zeros
    until the test is over."""
    repaired: list[tuple[Path, bytes]] = []

    def do(adapter: Adapter) -> None:
        httpx.post(f"{engine.url}/v1/unload_lora_adapter", json={"lora_name": adapter.name})
        weights = engine.artifacts / adapter.path / "adapter_model.safetensors"
        repaired.append((weights, weights.read_bytes()))
        weights.write_bytes(repaired[-1][1][:-8] + b"\0" * 8)

    yield do
    for weights, good in repaired:
        weights.write_bytes(good)


def ask(project: Project, user: User, choice: str = "live") -> str:
    """Ask a question; return the version that answers."""
    conversation = Conversation.objects.create(project=project, user=user, choice=choice)
    turn = turn_begin(conversation=conversation, text="Hello?")
    list(turn_stream(turn=turn))
    turn.refresh_from_db()
    assert turn.completion is not None
    assert turn.error == ""
    return turn.completion.version


def test_last_good_release_answers_and_pages_show_it(
    served: Project,
    three: list[Adapter],
    damage: Damage,
    admin: User,
    as_user: Callable[[User], Client],
) -> None:
    first, second, third = three
    damage(second)
    damage(third)
    assert ask(served, admin) == first.name

    served.refresh_from_db()
    assert served.live_version == first.name
    release = Release.objects.get(live=True)
    assert release.released_by is None
    assert f"{third.name} cannot be served" in release.reason
    assert "adapter_model.safetensors differs from its hash" in release.reason
    assert AuditEvent.objects.get(action="release.fallback").target == third.name
    page = as_user(admin).get(reverse("releases", args=[served.slug])).content.decode()
    assert f"{third.name} cannot be served" in page
    assert 'role="alert"' in page
    # after a person releases again the warning is gone
    release_promote(project=served, adapter=None, by=admin)
    page = as_user(admin).get(reverse("releases", args=[served.slug])).content.decode()
    assert 'role="alert"' not in page


def test_base_answers_if_no_release_is_good_also_in_the_gateway(
    served: Project, three: list[Adapter], damage: Damage, admin: User
) -> None:
    for adapter in three:
        damage(adapter)
    scopes = [Scope.CHAT]
    program = Program(*token_create(project=served, name="Shop", scopes=scopes, by=admin))
    answer = program.ask().json()
    assert answer["model"] == "base"
    assert answer["choices"][0]["message"]["content"]
    served.refresh_from_db()
    assert served.live_version == "base"


def test_broken_candidate_ends_its_split_and_live_answers(
    served: Project,
    make_adapter: MakeAdapter,
    damage: Damage,
    admin: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    candidate = make_adapter(14)
    split = split_start(project=served, adapter=candidate, percent=99, by=admin)
    damage(candidate)
    monkeypatch.setattr("secrets.randbelow", lambda _: 0)
    assert ask(served, admin) == "base"
    split.refresh_from_db()
    assert split.status == "stopped"
    assert "cannot be served" in split.reason
    assert not Release.objects.exists()


def test_no_fallback_for_a_picked_version_or_an_engine_without_files(
    served: Project,
    three: list[Adapter],
    damage: Damage,
    engine: RunningEngine,
    admin: User,
    settings: Settings,
    tmp_path: Path,
) -> None:
    *_, third = three
    damage(third)
    with pytest.raises(EngineError, match="safetensors"):
        ask(served, admin, choice=third.name)
    # intact files that the engine refuses, because they are outside its artifact root
    name = served.adapter_name(15)
    good = engine.artifacts / "adapters" / name
    if not good.exists():
        write_adapter_once(engine, good, name, seed=15)
    settings.ARTIFACT_ROOT = tmp_path
    shutil.copytree(good, tmp_path / "adapters" / name)
    shutil.rmtree(good)
    third.name, third.path = name, f"adapters/{name}"
    third.save()
    Project.objects.update(live_version=name)
    served.refresh_from_db()
    with pytest.raises(EngineError, match="outside the artifact root"):
        ask(served, admin)
    served.refresh_from_db()
    assert served.live_version == name
