"""Long work on a slow engine finishes, and sends no request twice.

Time is scaled: one token per second is 0.05 s here, and so are the limits that used to end such
work (60 s for a whole answer, 60 s without a heartbeat).
"""

import datetime as dt
import threading
from collections.abc import Callable, Iterator

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from feedback_app.accounts.models import Scope, User
from feedback_app.closed_loop.measure import side_sample
from feedback_app.feedback.models import Completion, Project, Sampling, Source, Split
from feedback_app.feedback.prompts.completions import sampling_request
from feedback_app.feedback.prompts.services import prompt_get_or_create
from feedback_app.feedback.tokens.services import token_create
from feedback_app.serving.demo import generation
from feedback_app.serving.demo.conversations import turn_begin, turn_stream
from feedback_app.serving.engine import batch
from feedback_app.serving.engine.client import Engine, EngineError
from feedback_app.serving.engine.client import Sampling as How
from feedback_app.serving.engine.concurrency import START
from feedback_app.serving.models import ChangeReport, Conversation, FixedAnswer, Turn
from feedback_app.serving.releases.services import release_promote
from feedback_app.serving.sampling.services import (
    SamplingClaim,
    missing,
    sampling_claim,
    sampling_execute,
)
from feedback_app.serving.version_diff.services import (
    report_claim,
    report_execute,
    version_diff_request,
)
from tests.api.gateway_client import Program
from tests.engines import wait_until
from tests.served import MODEL, MakeAdapter
from tests.serving.engine.slow_engine import WORD, SlowEngine, slow_engine

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
As = Callable[[User], Client]
HOW = How(max_tokens=100, temperature=0.0, top_p=1.0)
#: An answer of 120 tokens at one token per second, scaled, and limits that it exceeds.
LONG = {"tokens": 120, "token_seconds": 0.05}
STALE = SILENCE = 4.0


@pytest.fixture
def slow(project: Project, settings: Settings) -> Iterator[SlowEngine]:
    """Serve as the project's engine."""
    with slow_engine() as engine:
        settings.ENGINES = {MODEL: engine.url}
        settings.ENGINE_SILENCE_SECONDS = SILENCE
        project.base_model = MODEL
        project.save()
        yield engine


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry failed requests after a short delay."""
    monkeypatch.setattr(batch, "RETRY_SECONDS", (0.05, 0.05, 0.05))
    monkeypatch.setattr(batch, "BUSY_SECONDS", 0.1)


def questions(project: Project, count: int) -> list[str]:
    """Create this many prompts of the project; return their texts."""
    texts = [f"Question {number}?" for number in range(count)]
    for text in texts:
        prompt_get_or_create(
            project=project, messages=[{"role": "user", "content": text}], source=Source.IMPORT
        )
    return texts


def claimed(project: Project, *, answers_per_prompt: int = 1) -> SamplingClaim:
    sampling = sampling_request(project=project, answers_per_prompt=answers_per_prompt)
    claim = sampling_claim(sampling.pk)
    assert claim is not None
    return claim


def sampled(claim: SamplingClaim) -> Sampling:
    """Run the sampling to the end of this attempt."""
    sampling_execute(claim)
    return Sampling.objects.get(pk=claim.row.pk)


def again(sampling: Sampling) -> Sampling:
    """Run the attempt of the next tick."""
    claim = sampling_claim(sampling.pk)
    assert claim is not None, "it is queued for another attempt"
    return sampled(claim)


# -- sampling


@pytest.mark.long
def test_forty_slow_answers_are_each_requested_once(
    slow: SlowEngine, project: Project, settings: Settings
) -> None:
    settings.RUN_STALE_SECONDS = STALE
    texts = questions(project, 20)
    slow.behave(**LONG)
    claim = claimed(project, answers_per_prompt=2)

    def work() -> None:
        try:
            sampling_execute(claim)
        finally:
            connection.close()

    worker = threading.Thread(target=work)
    worker.start()
    second: list[SamplingClaim | None] = []

    def ended() -> bool:
        second.append(sampling_claim(claim.row.pk))
        return not worker.is_alive()

    wait_until(ended, seconds=240, what="the sampling")
    worker.join()

    assert set(second) == {None}, "a second worker must never get the claim"
    sampling = Sampling.objects.get()
    assert (sampling.status, sampling.done, sampling.total) == ("done", 40, 40)
    assert sampling.error == ""
    assert slow.asked == dict.fromkeys(texts, 2)
    first = Completion.objects.order_by("created_at").first()
    assert first is not None
    assert sampling.started_at is not None
    waited = first.created_at - sampling.started_at
    assert waited > dt.timedelta(seconds=max(STALE, SILENCE)), (
        "the first answer must take longer than either limit"
    )
    assert START < slow.peak <= batch.PARALLEL, "the limit grows with the rate of the engine"


def test_aborted_answer_alone_is_requested_again(
    slow: SlowEngine, project: Project, soon: None
) -> None:
    texts = questions(project, 12)
    slow.behave(token_seconds=0.02, faults={texts[3]: "once"})
    sampling = sampled(claimed(project))
    assert (sampling.status, sampling.done, sampling.error) == ("done", 12, "")
    assert slow.asked.pop(texts[3]) == 2
    assert set(slow.asked.values()) == {1}
    assert {each.text.count(WORD) for each in Completion.objects.all()} == {9}


def test_answer_that_keeps_failing_alone_is_missing(
    slow: SlowEngine, project: Project, admin: User, as_user: As, soon: None
) -> None:
    texts = questions(project, 12)
    slow.behave(token_seconds=0.02, faults={texts[0]: "break", texts[5]: "400"})
    sampling = sampled(claimed(project))
    assert (sampling.status, sampling.done, sampling.total) == ("done", 10, 12)
    assert "2 of 12 answers are missing" in sampling.error
    assert slow.asked.pop(texts[0]) == 1 + len(batch.RETRY_SECONDS)
    assert set(slow.asked.values()) == {1}, "a refused request is not retried either"
    assert sampling_claim(sampling.pk) is None
    page = as_user(admin).get(reverse("project-settings", args=[project.slug]))
    assert "2 of 12 answers are missing" in page.content.decode()


def test_prompt_that_no_answer_comes_to_does_not_stop_the_sampling(
    slow: SlowEngine, project: Project, soon: None
) -> None:
    """A prompt that is too long for the engine's memory, for example: each of its answers fails."""
    texts = questions(project, 4)
    slow.behave(token_seconds=0.02, faults={texts[1]: "500"})
    sampling = sampled(claimed(project, answers_per_prompt=4))
    assert (sampling.status, sampling.done, sampling.total) == ("done", 12, 16)
    assert "4 of 16 answers are missing" in sampling.error


def test_long_prompts_are_answered_after_all_others(
    slow: SlowEngine, project: Project, soon: None
) -> None:
    """Reading one takes minutes on a slow machine, and may end the engine."""
    long = "Is this long? " * 1_500  # about 6,000 tokens
    prompt_get_or_create(
        project=project, messages=[{"role": "user", "content": long}], source=Source.IMPORT
    )
    texts = questions(project, 3)
    slow.behave(token_seconds=0.0)
    claim = claimed(project, answers_per_prompt=2)

    order = [prompt.title for prompt, _ in missing(claim.row)]

    assert order == [*texts, *texts, long, long]
    assert sampled(claim).done == 8


def test_engine_that_stops_sending_times_out_and_sampling_resumes_later(
    slow: SlowEngine, project: Project, settings: Settings, soon: None
) -> None:
    settings.ENGINE_SILENCE_SECONDS = 1.0
    texts = questions(project, 10)
    slow.behave(token_seconds=0.02, faults=dict.fromkeys(texts[4:], "silent"))
    sampling = sampled(claimed(project))
    assert (sampling.status, sampling.done) == ("queued", 4)
    assert "6 of 10 answers are missing" in sampling.error
    assert "sent nothing for 1 s" in sampling.error

    slow.behave(token_seconds=0.02)
    slow.asked.clear()
    sampling = again(sampling)
    assert (sampling.status, sampling.done, sampling.error) == ("done", 10, "")
    assert slow.asked == dict.fromkeys(texts[4:], 1), "stored answers are not requested again"


def test_answers_in_flight_are_stored_when_the_engine_fails(
    slow: SlowEngine, project: Project, soon: None
) -> None:
    texts = questions(project, 4)
    bad = texts[:3]  # three in a row, while the fourth is being generated
    slow.behave(tokens=40, token_seconds=0.05, faults=dict.fromkeys(bad, "500"))
    sampling = sampled(claimed(project))
    assert (sampling.status, sampling.done) == ("queued", 1)
    slow.behave(token_seconds=0.0)
    assert again(sampling).done == 4
    assert slow.asked[texts[3]] == 1


def test_version_unknown_to_the_engine_ends_the_sampling(
    slow: SlowEngine, project: Project, soon: None
) -> None:
    texts = questions(project, 4)
    slow.behave(faults=dict.fromkeys(texts, "404"))
    sampling = sampled(claimed(project))
    assert (sampling.status, sampling.done) == ("failed", 0)
    assert "4 of 4 answers are missing" in sampling.error
    assert set(slow.asked.values()) == {1}


def test_engine_that_is_down_loses_no_answer(
    slow: SlowEngine, project: Project, soon: None
) -> None:
    texts = questions(project, 2)
    slow.behave(healthy=False, faults=dict.fromkeys(texts, "503"))
    sampling = sampled(claimed(project))
    assert (sampling.status, sampling.done) == ("queued", 0)
    slow.behave(token_seconds=0.0)
    assert again(sampling).done == 2


def test_full_queue_lowers_the_number_in_flight(
    slow: SlowEngine, project: Project, soon: None
) -> None:
    texts = questions(project, 20)
    slow.behave(token_seconds=0.02, queue=2)
    sampling = sampled(claimed(project))
    assert (sampling.status, sampling.done, sampling.error) == ("done", 20, "")
    assert slow.asked == dict.fromkeys(texts, 1)
    assert 0 < slow.refused < 20, "the limit is reduced after refusals"


def test_full_queue_does_not_count_as_a_failed_attempt(
    slow: SlowEngine, project: Project, soon: None
) -> None:
    questions(project, 4)
    slow.behave(queue=0)

    def room() -> None:
        wait_until(lambda: slow.refused > 20, what="more refusals than an answer has attempts")
        slow.behave(token_seconds=0.0)

    opening = threading.Thread(target=room)
    opening.start()
    sampling = sampled(claimed(project))
    opening.join()
    assert (sampling.status, sampling.done, sampling.error) == ("done", 4, "")


def test_lost_claim_cancels_the_requests_in_flight(
    slow: SlowEngine, project: Project, settings: Settings
) -> None:
    settings.RUN_STALE_SECONDS = 1.2
    questions(project, 8)
    slow.behave(tokens=100_000, token_seconds=0.05)
    claim = claimed(project)
    worker = threading.Thread(target=lambda: (sampling_execute(claim), connection.close()))
    worker.start()
    wait_until(lambda: slow.under_way >= START, what="requests under way")
    Sampling.objects.update(attempt=claim.attempt + 1)
    worker.join(60)
    assert not worker.is_alive()
    wait_until(lambda: slow.under_way == 0, what="the engine to become idle")
    assert Sampling.objects.get().status == "running", "the other worker holds it"


# -- other requests to the engine


@pytest.mark.long
def test_request_queued_in_the_engine_does_not_time_out(
    slow: SlowEngine, project: Project, settings: Settings
) -> None:
    settings.ENGINE_SILENCE_SECONDS = 2.0
    slow.behave(tokens=60, token_seconds=0.1, batch=1)
    questions = [[{"role": "user", "content": text}] for text in ("A", "B")]
    found: list[str] = []

    def ask(number: int) -> None:
        answer = Engine(project).answer(questions[number], version="base", sampling=HOW)  # type: ignore[arg-type]
        found.append(answer.text)

    threads = [threading.Thread(target=ask, args=[number]) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(text[0] for text in found) == ["A", "B"]


def test_engine_that_sends_nothing_times_out(
    slow: SlowEngine, project: Project, settings: Settings
) -> None:
    settings.ENGINE_SILENCE_SECONDS = 0.5
    slow.behave(faults={"A": "silent"})
    with pytest.raises(EngineError, match=r"sent nothing for 0\.5 s"):
        Engine(project).answer([{"role": "user", "content": "A"}], version="base", sampling=HOW)


def test_answer_without_a_finish_reason_is_an_error(slow: SlowEngine, project: Project) -> None:
    slow.behave(token_seconds=0.0, faults={"A": "break"})
    with pytest.raises(EngineError, match="broke the answer off"):
        Engine(project).answer([{"role": "user", "content": "A"}], version="base", sampling=HOW)


@pytest.mark.parametrize("stream", [pytest.param(False, marks=pytest.mark.long), True])
def test_gateway_returns_a_slow_answer(
    stream: bool, slow: SlowEngine, project: Project, admin: User
) -> None:
    slow.behave(**LONG)
    program = Program(*token_create(project=project, name="Shop", scopes=list(Scope), by=admin))
    answer = program.ask(stream=stream)
    if stream:
        assert b"".join(answer.streaming_content).endswith(b"data: [DONE]\n\n")
    kept = Completion.objects.get()
    assert (kept.finish_reason, len(kept.token_ids)) == ("stop", 120)


def test_demo_streams_a_slow_answer_and_shows_that_it_is_waiting(
    slow: SlowEngine, project: Project, admin: User, as_user: As
) -> None:
    slow.behave(**LONG, batch=0)
    threading.Timer(0.5, slow.places.release).start()
    response = as_user(admin).post(
        reverse("conversation-new", args=[project.slug]),
        {"text": "Hello?"},
        headers={"Accept": "text/event-stream"},
    )
    said = b"".join(response.streaming_content).decode()
    assert said.count("event: piece\n") == 120
    assert ": waiting\n\n" in said.partition("event: piece")[0], (
        "a comment keeps the stream open in proxies"
    )
    assert "event: done" in said
    turn = Turn.objects.select_related("completion").get()
    assert turn.completion is not None
    assert turn.completion.finish_reason == "stop"


def test_account_deactivated_mid_stream_ends_the_answer(
    slow: SlowEngine, project: Project, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "ACCESS_CHECK_SECONDS", 0.0)
    conversation = Conversation.objects.create(project=project, user=admin)
    turn = turn_begin(conversation=conversation, text="Hello?")
    pieces = 0
    for _ in turn_stream(turn=turn):
        pieces += 1
        User.objects.filter(pk=admin.pk).update(is_active=False)
    turn.refresh_from_db()
    assert turn.completion is not None
    assert turn.completion.finish_reason == "aborted"
    assert pieces == 1


def test_canary_waits_for_a_slow_engine(
    slow: SlowEngine, make_adapter: MakeAdapter, project: Project, admin: User, settings: Settings
) -> None:
    adapter = make_adapter(1)
    settings.ENGINES = {MODEL: slow.url}
    settings.ENGINE_SILENCE_SECONDS = 1.0
    slow.behave(batch=0)
    threading.Timer(2.5, slow.places.release).start()
    release_promote(project=project, adapter=adapter, by=admin)
    assert project.live_version == adapter.name


@pytest.mark.long
def test_version_diff_completes_on_a_slow_engine(
    slow: SlowEngine,
    make_adapter: MakeAdapter,
    project: Project,
    admin: User,
    settings: Settings,
    soon: None,
) -> None:
    adapter = make_adapter(1)
    settings.ENGINES = {MODEL: slow.url}
    settings.RUN_STALE_SECONDS = STALE
    texts = questions(project, 3)
    project.prompts.update(split=Split.VALIDATION)
    slow.behave(**LONG, faults={texts[0]: "break", texts[1]: "once"})
    version_diff_request(adapter=adapter, by=admin)
    claim = report_claim(adapter.pk)
    assert claim is not None
    worker = threading.Thread(target=lambda: (report_execute(claim), connection.close()))
    worker.start()
    second: list[object] = []

    def ended() -> bool:
        second.append(report_claim(adapter.pk))
        return not worker.is_alive()

    wait_until(ended, seconds=240, what="the report")
    assert set(second) == {None}
    report = ChangeReport.objects.get()
    assert (report.status, report.done, report.total) == ("failed", 4, 6)
    assert "2 answers are missing" in report.error
    assert slow.asked[texts[2]] == 2, "once per version"

    slow.behave(token_seconds=0.0)
    slow.asked.clear()
    version_diff_request(adapter=adapter, by=admin)
    claim = report_claim(adapter.pk)
    assert claim is not None
    report_execute(claim)
    assert ChangeReport.objects.get().status == "done"
    assert FixedAnswer.objects.count() == 6
    assert slow.asked == {texts[0]: 2}, "only the missing answers"


def test_measurement_keeps_the_order_and_repeats_aborted_answers(
    slow: SlowEngine, project: Project, soon: None
) -> None:
    texts = [f"Why {number}?" for number in range(6)]
    slow.behave(token_seconds=0.02, faults={texts[0]: "once"})
    progress: list[tuple[int, int]] = []

    def measure() -> list[list[str]]:
        side = side_sample(
            project=project,
            version="base",
            prompts=[[{"role": "user", "content": text}] for text in texts],
            answers_per_prompt=2,
            on_progress=lambda done, total: progress.append((done, total)),
        )
        return side.texts

    assert [[text.partition("?")[0] + "?" for text in group] for group in measure()] == [
        [text] * 2 for text in texts
    ]
    assert progress == [(done, 12) for done in range(1, 13)]
    slow.behave(token_seconds=0.0, faults={texts[0]: "break"})
    with pytest.raises(EngineError, match="broke the answer off"):
        measure()
