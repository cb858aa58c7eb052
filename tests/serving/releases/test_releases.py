"""Promotion against a real engine: load, canary, flip, drain; and its failures."""

import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Project
from feedback_app.privacy.forgetting.services import project_forget
from feedback_app.serving.engine.client import Engine, EngineError
from feedback_app.serving.engine.client import Sampling as SamplingSettings
from feedback_app.serving.engine.stream import Streamed
from feedback_app.serving.models import Release
from feedback_app.serving.releases.selectors import adapters_to_release
from feedback_app.serving.releases.services import (
    PromotionLost,
    release_flip,
    release_promote,
    release_rollback,
)
from feedback_app.training.models import Erasure
from feedback_app.web.errors import UserError
from tests.engines import PATIENCE, RunningEngine
from tests.served import MakeAdapter

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


def loaded(engine: RunningEngine) -> set[str]:
    return set(httpx.get(f"{engine.url}/health").json()["adapters"])


def test_promotion_loads_flips_and_unloads_the_old_one(
    served: Project, engine: RunningEngine, make_adapter: MakeAdapter, admin: User
) -> None:
    first, second = make_adapter(1), make_adapter(2)
    release_promote(project=served, adapter=first, by=admin, reason="try it")
    assert served.live_version == first.name
    assert first.name in loaded(engine)

    release_promote(project=served, adapter=second, by=admin)
    served.refresh_from_db()
    assert served.live_version == second.name
    assert second.name in loaded(engine)
    assert first.name not in loaded(engine)
    timeline = list(Release.objects.order_by("pk").values_list("live", "reason"))
    assert timeline == [(False, "try it"), (True, "")]
    assert Release.objects.first().until is not None
    assert AuditEvent.objects.filter(action="release", actor=admin).count() == 2


def test_promotion_of_a_live_or_discarded_version_is_refused(
    served: Project, make_adapter: MakeAdapter, admin: User
) -> None:
    adapter = make_adapter(1)
    release_promote(project=served, adapter=adapter, by=admin)
    with pytest.raises(UserError, match="live already"):
        release_promote(project=served, adapter=adapter, by=admin)
    other = make_adapter(2)
    other.discarded_at = other.created_at
    other.save()
    with pytest.raises(UserError, match="discarded"):
        release_promote(project=served, adapter=other, by=admin)


def test_damaged_adapter_changes_nothing(
    served: Project, engine: RunningEngine, make_adapter: MakeAdapter, admin: User
) -> None:
    adapter = make_adapter(7)
    weights = engine.artifacts / adapter.path / "adapter_model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-8] + b"\0" * 8)
    try:
        with pytest.raises(EngineError, match=r"adapter_model\.safetensors"):
            release_promote(project=served, adapter=adapter, by=admin)
    finally:
        weights.write_bytes(good)
    served.refresh_from_db()
    assert served.live_version == "base"
    assert not Release.objects.exists()


def test_missing_adapter_directory_is_reported(
    served: Project, make_adapter: MakeAdapter, admin: User
) -> None:
    adapter = make_adapter(1)
    adapter.path = str(Path("adapters") / "bot@99")
    with pytest.raises(EngineError):
        release_promote(project=served, adapter=adapter, by=admin)
    assert not Release.objects.exists()


def test_engine_that_does_not_answer_changes_nothing(
    served: Project, make_adapter: MakeAdapter, admin: User, settings: Settings
) -> None:
    adapter = make_adapter(1)
    settings.ENGINES = {served.base_model: "http://127.0.0.1:9"}
    with pytest.raises(EngineError, match="does not answer"):
        release_promote(project=served, adapter=adapter, by=admin)
    assert not Release.objects.exists()


def test_base_without_an_engine_is_reported(
    served: Project, make_adapter: MakeAdapter, admin: User, settings: Settings
) -> None:
    adapter = make_adapter(1)
    settings.ENGINES = {"another": "http://127.0.0.1:9"}
    with pytest.raises(EngineError, match="No engine serves tiny"):
        release_promote(project=served, adapter=adapter, by=admin)


def test_rollback_goes_to_the_previous_version_and_then_to_base(
    served: Project, make_adapter: MakeAdapter, admin: User
) -> None:
    first, second = make_adapter(1), make_adapter(2)
    release_promote(project=served, adapter=first, by=admin)
    release_promote(project=served, adapter=second, by=admin)
    assert release_rollback(project=served, by=admin).version == first.name

    first_only = Project.objects.get()
    release_promote(project=first_only, adapter=None, by=admin)
    with pytest.raises(UserError, match="nothing to go back"):
        release_rollback(project=first_only, by=admin)


def test_schedule_releases_the_newest_gate_winner_once(
    served: Project, make_adapter: MakeAdapter
) -> None:
    make_adapter(1, auto_release=True)
    make_adapter(2, auto_release=True, gate_won=False)
    newest = make_adapter(3, auto_release=True)
    assert list(adapters_to_release()) == [newest]
    release_promote(project=served, adapter=newest, by=None)
    assert list(adapters_to_release()) == []


@pytest.mark.django_db(transaction=True)
def test_second_of_two_concurrent_promotions_is_refused(
    served: Project, make_adapter: MakeAdapter, admin: User
) -> None:
    adapters = [make_adapter(1), make_adapter(2)]
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def promote(number: int) -> None:
        try:
            barrier.wait(timeout=PATIENCE)
            release_flip(
                project=Project.objects.get(),
                adapter=adapters[number],
                before=None,
                by=admin,
                reason="",
            )
            outcomes.append("won")
        except PromotionLost:
            outcomes.append("refused")
        finally:
            connection.close()

    threads = [threading.Thread(target=promote, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE)
    assert sorted(outcomes) == ["refused", "won"]
    assert Release.objects.filter(live=True).count() == 1
    assert Project.objects.get().live_version == Release.objects.get(live=True).version


STREAMS = 50


def test_promotion_breaks_none_of_fifty_streams(
    served: Project, engine: RunningEngine, make_adapter: MakeAdapter, admin: User
) -> None:
    """Fault 27: streams that have begun end on the version they began with."""
    first, second = make_adapter(1), make_adapter(2)
    release_promote(project=served, adapter=first, by=admin)
    begun = threading.Barrier(STREAMS + 1)
    ends: list[str] = []

    def read(number: int) -> None:
        into = Streamed()
        coming = Engine(served).stream(
            [{"role": "user", "content": f"Question {number}?"}],
            version=first.name,
            sampling=SamplingSettings(max_tokens=200, temperature=1.0, top_p=1.0, seed=number),
            into=into,
        )
        try:
            waiting = True
            for piece in coming:
                if waiting and piece:
                    begun.wait(timeout=PATIENCE)
                    waiting = False
            ends.append(into.finish_reason)
        except (EngineError, threading.BrokenBarrierError) as error:
            ends.append(f"{type(error).__name__}: {error}")
        finally:
            connection.close()

    threads = [threading.Thread(target=read, args=(n,)) for n in range(STREAMS)]
    for thread in threads:
        thread.start()
    begun.wait(timeout=PATIENCE)  # each has sent its first piece
    release_promote(project=served, adapter=second, by=admin)
    for thread in threads:
        thread.join(timeout=PATIENCE)
    assert Counter(ends).keys() <= {"stop", "length"}, Counter(ends)
    assert len(ends) == STREAMS
    assert first.name not in loaded(engine)


def test_version_that_learned_from_what_was_erased_is_unloaded_and_not_loaded_again(
    served: Project, engine: RunningEngine, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(1)
    Engine(served).load(adapter)
    assert adapter.name in loaded(engine)
    Erasure.objects.create(
        project=served,
        person=1,
        account=False,
        runs=[1],
        due_at=timezone.now() + timedelta(days=1),
        finished_at=timezone.now(),
    )

    project_forget(served.pk)

    adapter.refresh_from_db()
    assert adapter.locked_at is not None
    assert adapter.name not in loaded(engine)
    # samplings and change reports load it first
    with pytest.raises(EngineError, match="it is locked"):
        Engine(served).load_version(adapter.name)
    assert adapter.name not in loaded(engine)
