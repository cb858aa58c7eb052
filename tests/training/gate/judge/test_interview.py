"""Many questions to a judge: both orders, at once, repeated, stopped, and none asked twice."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from feedback_app.training.gate.judge import interview as module
from feedback_app.training.gate.judge.client import JudgeClient
from feedback_app.training.gate.judge.interview import (
    AT_ONCE,
    DOWN_AFTER,
    Interrupted,
    Interview,
    JudgeDown,
)
from feedback_app.training.gate.judge.questions import Pair
from tests.engines import wait_until
from tests.training.gate.judge.server import Asked, JudgeServer, Reply, choose, longer

pytestmark = pytest.mark.slow


@contextmanager
def interviewing(
    server: JudgeServer, path: Path, *, seconds: float = 60, **options: Any
) -> Iterator[Interview]:
    with JudgeClient(
        url=server.url, model="judge-1", api_key="", seconds=120, silence=30, connections=AT_ONCE
    ) as client:
        yield Interview(client, path, until=time.monotonic() + seconds, **options)


def pairs_of(count: int) -> list[Pair]:
    """Return pairs whose first answer is the longer one."""
    return [
        Pair(f"p{n}", [{"role": "user", "content": f"Question {n}"}], f"A long one {n}", f"No {n}")
        for n in range(count)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "judge.jsonl"


def test_judge_of_length_chooses_the_longer_answer_in_both_orders(
    server: JudgeServer, path: Path
) -> None:
    server.behaviour = longer
    with interviewing(server, path) as interview:
        found = interview.choices(pairs_of(20))
    assert found == {f"p{n}": ("first", "first") for n in range(20)}
    assert len(server.asked) == 40


def test_judge_of_a_position_chooses_each_answer_once(server: JudgeServer, path: Path) -> None:
    with interviewing(server, path) as interview:
        assert interview.choices(pairs_of(1)) == {"p0": ("first", "second")}


def test_equal_answers_are_a_tie_without_a_question(server: JudgeServer, path: Path) -> None:
    with interviewing(server, path) as interview:
        assert interview.choices([Pair("p", [], "Same.", "Same.")]) == {"p": ("tie", "tie")}
    assert server.asked == []


def test_garbage_is_no_choice_and_is_not_asked_again(server: JudgeServer, path: Path) -> None:
    server.behaviour = lambda asked: Reply("As an AI model, I prefer both.")
    for _ in range(2):
        with interviewing(server, path) as interview:
            assert interview.choices(pairs_of(3)) == {f"p{n}": (None, None) for n in range(3)}
    assert len(server.asked) == 6


def test_failures_are_repeated(server: JudgeServer, path: Path) -> None:
    seen: Counter[str] = Counter()

    def flaky(asked: Asked) -> Reply:
        with server.lock:
            seen[json.dumps(asked.body)] += 1
            first = seen[json.dumps(asked.body)] == 1
        return Reply(status=500) if first else longer(asked)

    server.behaviour = flaky
    with interviewing(server, path) as interview:
        found = interview.choices(pairs_of(10))
    assert set(found.values()) == {("first", "first")}
    assert set(seen.values()) == {2}


def test_one_question_that_always_fails_costs_its_pair_alone(
    server: JudgeServer, path: Path
) -> None:
    server.behaviour = lambda asked: (
        Reply(status=400) if "Question 3" in str(asked.body) else longer(asked)
    )
    with interviewing(server, path) as interview:
        found = interview.choices(pairs_of(10))
    assert found.pop("p3") == (None, None)
    assert set(found.values()) == {("first", "first")}
    # nothing is stored of it: the next attempt asks again
    server.behaviour = longer
    with interviewing(server, path) as interview:
        assert interview.choices(pairs_of(10))["p3"] == ("first", "first")


def test_judge_that_always_fails_is_given_up(server: JudgeServer, path: Path) -> None:
    server.behaviour = lambda asked: Reply(status=503)
    with interviewing(server, path) as interview, pytest.raises(JudgeDown, match="503"):
        interview.choices(pairs_of(200))
    attempts = len(module.PAUSES) + 1
    assert len(server.asked) <= attempts * (DOWN_AFTER + 2 * AT_ONCE)


def test_wrong_key_ends_the_interview_at_once(server: JudgeServer, path: Path) -> None:
    server.behaviour = lambda asked: Reply(status=401)
    with interviewing(server, path) as interview, pytest.raises(JudgeDown, match="401"):
        interview.choices(pairs_of(200))
    assert len(server.asked) <= 3 * AT_ONCE


def test_few_are_asked_however_late_a_failure_is_seen(
    server: JudgeServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*arguments: Any) -> Any:
        time.sleep(0.5)  # as on a busy machine; the threads go on meanwhile
        return wait(*arguments)

    monkeypatch.setattr(module, "wait", late)
    server.behaviour = lambda asked: Reply(status=401)
    with interviewing(server, path) as interview, pytest.raises(JudgeDown, match="401"):
        interview.choices(pairs_of(200))
    assert len(server.asked) <= 2 * AT_ONCE


def test_questions_are_asked_at_once_within_the_limit(server: JudgeServer, path: Path) -> None:
    together = threading.Barrier(AT_ONCE)

    def crowd(asked: Asked) -> Reply:
        together.wait(timeout=60)  # nobody is answered before eight have asked
        return longer(asked)

    server.behaviour = crowd
    with interviewing(server, path) as interview:
        assert len(interview.choices(pairs_of(2 * AT_ONCE))) == 2 * AT_ONCE
    assert server.most_at_once == AT_ONCE


def test_interrupted_interview_asks_only_the_rest(server: JudgeServer, path: Path) -> None:
    stop, answered = threading.Event(), []

    def some(asked: Asked) -> Reply:
        with server.lock:
            if len(answered) < 10:
                answered.append(asked)
                return longer(asked)
        stop.set()
        return Reply(silent=True)

    server.behaviour = some
    with (
        interviewing(server, path, stopped=stop.is_set) as interview,
        pytest.raises(Interrupted),
    ):
        interview.choices(pairs_of(20))
    stored = path.read_text()
    assert stored.count("question") == 10
    # killed while it wrote a line
    path.write_text(stored[:-5])
    server.behaviour, before = longer, len(server.asked)
    with interviewing(server, path) as interview:
        found = interview.choices(pairs_of(20))
    assert set(found.values()) == {("first", "first")}
    assert len(found) == 20
    assert len(server.asked) - before == 40 - 9
    with interviewing(server, path) as interview:
        assert interview.choices(pairs_of(20)) == found
    assert len(server.asked) - before == 40 - 9


def test_answers_that_come_while_it_stops_are_kept(server: JudgeServer, path: Path) -> None:
    release = threading.Event()

    def together(asked: Asked) -> Reply:
        release.wait(timeout=60)
        return longer(asked)

    def stopped() -> bool:
        release.set()
        wait_until(lambda: server.replied >= AT_ONCE, what="replies")
        return True

    server.behaviour = together
    with interviewing(server, path, stopped=stopped) as interview, pytest.raises(Interrupted):
        interview.choices(pairs_of(20))
    assert path.read_text().count("question") >= AT_ONCE


def test_texts_are_not_in_the_file(server: JudgeServer, path: Path) -> None:
    with interviewing(server, path) as interview:
        interview.choices(pairs_of(2))
    assert "Question" not in path.read_text()
    assert "long one" not in path.read_text()


def test_time_ends_the_interview_and_keeps_what_was_answered(
    server: JudgeServer, path: Path
) -> None:
    def slow(asked: Asked) -> Reply:
        return longer(asked) if "Question 0" in str(asked.body) else Reply(silent=True)

    server.behaviour = slow
    began = time.monotonic()
    with interviewing(server, path, seconds=2) as interview:
        found = interview.choices(pairs_of(30))
        assert found == {"p0": ("first", "first")}
        assert interview.late
        before = len(server.asked)
        assert interview.choices(pairs_of(31)) == found
        assert len(server.asked) == before
    assert time.monotonic() - began < 25


def test_other_judge_or_other_answers_are_other_questions(server: JudgeServer, path: Path) -> None:
    with interviewing(server, path) as interview:
        interview.choices(pairs_of(1))
    changed = [Pair("p0", pairs_of(1)[0].messages, "Another answer", "No 0")]
    server.behaviour = lambda asked: choose("tie")
    with interviewing(server, path) as interview:
        assert interview.choices(changed) == {"p0": ("tie", "tie")}
        assert interview.choices(pairs_of(1)) == {"p0": ("first", "second")}
