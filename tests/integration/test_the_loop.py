"""The loop with every process real: kill what can be killed, and only one adapter comes out."""

import json
import os
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings

from feedback_app.accounts.models import Role, User
from feedback_app.closed_loop.people import Person
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Project, Sampling, Source, Verdict, Vote
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.prompts.completions import Answer, completion_create, sampling_request
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.localstack.stack import Stack
from feedback_app.serving.models import Release, Turn
from feedback_app.training.gate.services import gate_settings_save
from feedback_app.training.models import Adapter, Run
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.services import run_cancel, run_request
from feedback_app.training.schedules.services import schedule_set
from tests.conftest import PASSWORD
from tests.engines import answers, wait_until
from tests.stacks import TINY, last_lines
from tests.training.gate.reports import SMALL_GATE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.long]
LONG = RunConfig(epochs=20, batch_size=2, kl_brake=10)
SHORT = RunConfig(epochs=1, batch_size=16, kl_brake=10)


@pytest.fixture
def world(stack: Stack) -> tuple[Project, User]:
    """A project on the tiny model with sixty voted answers, and its admin."""
    admin = User.objects.create_user("admin@example.com", PASSWORD, name="Ada")
    # names are never used again, also not after the rows are gone
    slug = f"bot-{uuid.uuid4().hex[:8]}"
    project = project_create(
        slug=slug, name="Bot", base_model=TINY, owner=admin, max_tokens=16, test_percent=20
    )
    annotator = User.objects.create_user("ann@example.com", PASSWORD)
    member_set(project=project, user=annotator, role=Role.ANNOTATOR)
    sampling = Sampling.objects.create(
        project=project, status=Sampling.Status.DONE, total=60, done=60
    )
    for number in range(60):
        completion = completion_create(
            project=project,
            prompt=prompt_get_or_create(
                project=project,
                messages=[{"role": "user", "content": f"Question {number}?"}],
                source=Source.IMPORT,
            ),
            answer=Answer(f"Answer {number}, short and finished.", "base", "stop", None, None),
            source=Source.IMPORT,
            sampling=sampling,
        )
        verdict = Verdict.UP if number % 3 == 0 else Verdict.DOWN
        vote_cast(completion=completion, verdict=verdict, by=annotator, source=Source.ANNOTATE)
    gate_settings_save(project=project, settings=SMALL_GATE, by=admin)
    return project, admin


@pytest.fixture
def people(stack: Stack) -> Iterator[Callable[[str], Person]]:
    """Signs people in by their address; their connections are closed afterwards."""
    made: list[Person] = []

    def sign_in(email: str) -> Person:
        person = Person(stack.url, email, PASSWORD)
        made.append(person)
        person.sign_in()
        return person

    yield sign_in
    for person in made:
        person.client.close()


def read_stream(
    person: Person,
    path: str,
    *,
    text: str = "Hello there",
    on_piece: Callable[[int], None] = lambda count: None,
) -> tuple[list[str], dict[str, Any]]:
    """Sends a message and reads its events: their names, and the last one's data."""
    names: list[str] = []
    data: dict[str, Any] = {}
    form = {"text": text, "csrfmiddlewaretoken": person.client.cookies["csrftoken"]}
    headers = {"Accept": "text/event-stream", "Referer": person.base_url}
    with person.client.stream("POST", path, data=form, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
            elif line.startswith("data: "):
                data = json.loads(line.removeprefix("data: "))
                on_piece(names.count("piece"))
    return names, data


def ended(run: Run) -> Callable[[], bool]:
    def check() -> bool:
        run.refresh_from_db()
        return not run.active

    return check


def succeeded(run: Run, stack: Stack) -> Run:
    wait_until(ended(run), what=f"the end of {run}")
    assert run.status == Run.Status.SUCCEEDED, (run.error, last_lines(stack, "worker-gpu"))
    return run


def test_run_resumes_after_its_worker_is_killed_and_makes_one_adapter(
    stack: Stack, world: tuple[Project, User]
) -> None:
    project, admin = world
    run = run_request(project=project, by=admin, config=LONG)

    def in_the_middle() -> bool:
        run.refresh_from_db()
        assert run.status != Run.Status.FAILED, run.error
        return run.phase == "training" and run.progress_done >= 15

    wait_until(in_the_middle, what="training to be under way")
    trained = run.progress_done
    stack.process("worker-gpu").kill()

    succeeded(run, stack)
    assert run.attempt >= 2
    assert trained < run.facts["total_steps"]
    notes = " ".join(run.notes.values_list("text", flat=True))
    assert "resumed from step" in notes
    steps = list(run.metrics.order_by("step").values_list("step", flat=True))
    assert steps == list(range(1, len(steps) + 1)), "a step is missing or double"
    assert Adapter.objects.count() == 1
    manifest = json.loads((run.adapter.directory / "manifest.json").read_text())
    assert manifest["name"] == f"{project.slug}@1"


def test_cancel_stops_the_trainer_after_a_checkpoint(
    stack: Stack, world: tuple[Project, User]
) -> None:
    project, admin = world
    run = run_request(project=project, by=admin, config=LONG)

    def training() -> bool:
        run.refresh_from_db()
        return run.phase == "training" and run.progress_done >= 2

    wait_until(training, what="training to be under way")
    run_cancel(run=run, by=admin)
    wait_until(ended(run), what="the cancelled run to end")
    assert run.status == Run.Status.CANCELLED
    assert not Adapter.objects.exists()
    assert any((run.directory / "checkpoints").iterdir())


def test_task_delivered_twice_makes_one_run(stack: Stack, world: tuple[Project, User]) -> None:
    from celery import Celery

    project, admin = world
    run = run_request(project=project, by=admin, config=SHORT)
    broker = Celery("again", broker=stack.redis_url, set_as_current=False)
    try:
        for _ in range(5):
            broker.send_task("training.train_run", (run.pk,), queue="gpu")
    finally:
        broker.close()
    succeeded(run, stack)
    assert run.attempt == 1
    assert Adapter.objects.count() == 1


def test_votes_are_stored_while_the_broker_is_down_and_the_run_continues_after(
    stack: Stack, world: tuple[Project, User], people: Callable[[str], Person]
) -> None:
    project, admin = world
    person = people("ann@example.com")
    valkey = stack.process("valkey")
    valkey.stop()
    try:
        voted = project.completions.first()
        person.get(f"/projects/{project.slug}/annotate/")
        person.post(f"/projects/{project.slug}/completions/{voted.pk}/vote/", {"verdict": "down"})
        assert Vote.objects.get(completion=voted).verdict == "down"
        run = run_request(project=project, by=admin, config=SHORT)
    finally:
        valkey.start()
    succeeded(run, stack)
    assert Adapter.objects.count() == 1


def test_broker_killed_and_emptied_while_a_run_and_a_sampling_work(
    stack: Stack, world: tuple[Project, User], people: Callable[[str], Person]
) -> None:
    """Fault 18: nothing runs twice, votes land, and what waits is sent again from its row."""
    project, admin = world
    sampling = sampling_request(project=project, answers_per_prompt=2)
    run = run_request(project=project, by=admin, config=LONG)

    def at_work() -> bool:
        run.refresh_from_db()
        sampling.refresh_from_db()
        return run.phase == "training" and run.progress_done >= 5 and sampling.done >= 1

    wait_until(at_work, what=f"both to work: {run.error} {sampling.error}")
    valkey = stack.process("valkey")
    os.kill(valkey.pid, signal.SIGKILL)
    for kept in Path(settings.VAR).rglob("dump.rdb"):
        kept.unlink()  # it comes back empty
    person = people("ann@example.com")
    voted = project.completions.first()
    person.get(f"/projects/{project.slug}/annotate/")
    person.post(f"/projects/{project.slug}/completions/{voted.pk}/vote/", {"verdict": "down"})
    assert Vote.objects.get(completion=voted).verdict == "down"

    succeeded(run, stack)
    assert run.attempt == 1, "the trainer needs no broker"
    assert Adapter.objects.count() == 1

    def sampled() -> bool:
        sampling.refresh_from_db()
        return sampling.status == Sampling.Status.DONE

    wait_until(sampled, what="all answers")
    answered = Counter(sampling.completions.values_list("prompt_id", flat=True))
    assert set(answered.values()) == {2}
    second = succeeded(run_request(project=project, by=admin, config=SHORT), stack)
    assert second.attempt == 1


def test_beat_trains_and_releases_automatically(stack: Stack, world: tuple[Project, User]) -> None:
    project, admin = world
    schedule_set(
        project=project,
        by=admin,
        enabled=True,
        min_new_examples=60,
        min_hours=1,
        auto_release=True,
    )
    wait_until(lambda: Run.objects.exists(), what="beat to start a run")
    run = succeeded(Run.objects.get(), stack)
    assert run.trigger == Run.Trigger.SCHEDULE
    if not run.adapter.gate_won:
        assert not Release.objects.exists(), "a lost gate must not be released"
        # noise has nothing to learn from: say that it won, and see what beat does
        Adapter.objects.update(gate_won=True)
    wait_until(lambda: Release.objects.filter(live=True).exists(), what="a release")
    project.refresh_from_db()
    assert project.live_version == run.adapter.name
    assert Release.objects.get().released_by is None
    assert Run.objects.count() == 1


def test_sampling_shows_progress_and_survives_a_killed_engine(
    stack: Stack, world: tuple[Project, User]
) -> None:
    project, _ = world
    sampling = sampling_request(project=project, answers_per_prompt=3)

    def some() -> bool:
        sampling.refresh_from_db()
        return sampling.done >= 5

    wait_until(some, what="the first answers")
    os.kill(stack.process("engine").pid, signal.SIGKILL)

    def done() -> bool:
        sampling.refresh_from_db()
        return sampling.status == Sampling.Status.DONE

    wait_until(done, what=f"all answers: {sampling.error}")
    answered = Counter(sampling.completions.values_list("prompt_id", flat=True))
    assert set(answered.values()) == {3}
    assert len(answered) == 60
    first = sampling.completions.first()
    assert first.token_ids
    assert first.prompt_token_ids


def test_demo_streams_the_live_version_and_its_thumb_is_a_vote(
    stack: Stack, world: tuple[Project, User], people: Callable[[str], Person]
) -> None:
    project, _ = world
    person = people("admin@example.com")
    page = person.post(f"/demo/{project.slug}/new/", {})
    conversation = str(page.url).rstrip("/").split("/")[-1]
    pieces, last = read_stream(person, f"/demo/{project.slug}/c/{conversation}/send/")
    assert pieces[0] == "turn"
    assert pieces[-1] == "done"
    assert pieces.count("piece") >= 2

    person.post(f"/demo/{project.slug}/completions/{last['completion']}/vote/", {"verdict": "up"})
    vote = Vote.objects.get(completion_id=last["completion"])
    assert (vote.verdict, vote.source) == ("up", "demo")
    assert vote.completion.token_ids


def test_engine_killed_mid_stream_shows_an_error_and_a_retry(
    stack: Stack, world: tuple[Project, User], people: Callable[[str], Person]
) -> None:
    project, _ = world
    Project.objects.filter(pk=project.pk).update(max_tokens=480)
    person = people("admin@example.com")
    page = person.post(f"/demo/{project.slug}/new/", {})
    conversation = str(page.url).rstrip("/").split("/")[-1]
    killed = []

    def kill_once(count: int) -> None:
        if count >= 3 and not killed:
            killed.append(stack.process("engine").pid)
            os.kill(killed[0], signal.SIGKILL)

    path = f"/demo/{project.slug}/c/{conversation}"
    # noise may end early: the message decides how long, so try some until one is long enough
    for attempt in range(10):
        names, last = read_stream(
            person, f"{path}/send/", text=f"Attempt {attempt}", on_piece=kill_once
        )
        if killed:
            break
    assert killed
    assert names[-1] == "error"
    assert "does not answer" in last["message"]
    turn = Turn.objects.get(conversation_id=conversation, error__gt="")
    assert turn.completion is not None
    assert turn.completion.finish_reason == "aborted"

    wait_until(lambda: answers(f"{stack.engine_url}/health"), what="the engine to be back")
    names, _ = read_stream(person, f"{path}/turns/{turn.pk}/again/", text="Once more")
    assert names[-1] == "done"


def test_health_needs_no_sign_in_and_pages_do(stack: Stack) -> None:
    assert httpx.get(f"{stack.url}/health").json() == {"status": "ok"}
    answer = httpx.get(f"{stack.url}/projects/bot/annotate/")
    assert answer.status_code == 302
    assert "/accounts/login/" in answer.headers["location"]
    policy = httpx.get(f"{stack.url}/accounts/login/").headers["content-security-policy"]
    assert "unsafe" not in policy
