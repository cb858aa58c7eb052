"""Asks a judge about many pairs, in both orders, within a time, and asks nothing twice."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import get_args

from feedback_app.training.gate.judge.agreement import Chosen
from feedback_app.training.gate.judge.client import JudgeClient, JudgeFailed
from feedback_app.training.gate.judge.questions import SCHEMA, Choice, Pair, choice_of, question

#: Questions at once.
AT_ONCE = 8
#: Pauses before the repetitions of a question that failed, in seconds.
PAUSES = (1.0, 4.0, 15.0, 30.0)
#: So many questions in a row without a response: the judge is down.
DOWN_AFTER = 8
POLL_SECONDS = 0.5
INVALID = ""

#: A pair and whether its answers are swapped.
Question = tuple[Pair, bool]


class JudgeDown(Exception):
    """No further question is worth asking; the message says why."""


class Interrupted(Exception):
    """The run was cancelled or its claim is lost."""


class Interview:
    """Asks a judge; answers are kept in the file `path`, by a hash of the question.

    `stopped` and `progress` are called about twice a second in the calling thread; the latter with
    the number of questions done and in all.
    """

    def __init__(
        self,
        client: JudgeClient,
        path: Path,
        *,
        until: float,
        stopped: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._client = client
        self._path = path
        self._until = until
        self._stopped = stopped
        self._progress = progress
        self._known = dict(_stored(path))
        #: set when the time was over before all questions were asked
        self.late = False

    def choices(self, pairs: Sequence[Pair]) -> dict[str, tuple[Chosen, Chosen]]:
        """Return the judge's choices in both orders by the pair's key.

        A choice is None where the judge gave no valid answer. Pairs that were not asked in both
        orders within the time are left out. Raise JudgeDown, Interrupted.
        """
        asked = [(pair, swapped) for pair in pairs for swapped in (False, True) if not pair.equal]
        failed = self._ask([each for each in asked if self._key(each) not in self._known])
        found: dict[str, tuple[Chosen, Chosen]] = {}
        for pair in pairs:
            if pair.equal:
                found[pair.key] = ("tie", "tie")
                continue
            keys = [self._key((pair, swapped)) for swapped in (False, True)]
            if all(key in self._known or key in failed for key in keys):
                plain, swapped = (self._known.get(key, INVALID) for key in keys)
                found[pair.key] = (_chosen(plain, swapped=False), _chosen(swapped, swapped=True))
        return found

    def _ask(self, questions: Sequence[Question]) -> set[str]:
        """Ask and store; return the keys of questions that failed."""
        failed: set[str] = set()
        in_a_row, done, looked = 0, 0, 0.0
        if not questions:
            return failed
        if time.monotonic() >= self._until:
            self.late = True
            return failed
        self._progress(done, len(questions))
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="judge")
        rest = iter(questions)
        futures: dict[Future[Choice | None], str] = {}
        waiting: set[Future[Choice | None]] = set()
        try:
            while True:
                # not all at once: however late this thread sees that a question failed, few more
                # have been asked
                for each in islice(rest, 2 * AT_ONCE - len(waiting)):
                    future = pool.submit(self._repeated, each)
                    futures[future] = self._key(each)
                    waiting.add(future)
                if not waiting:
                    break
                ready, waiting = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
                for future in ready:
                    done += 1
                    error = future.exception()
                    in_a_row = 0 if error is None else in_a_row + 1
                    if isinstance(error, JudgeFailed):
                        failed.add(futures[future])
                        if error.fatal or in_a_row >= DOWN_AFTER:
                            raise JudgeDown(str(error)) from error
                    elif error is not None:
                        raise error
                self._store(futures, ready)
                now = time.monotonic()
                if now >= self._until:
                    self.late = done < len(questions)
                    break
                if now - looked >= POLL_SECONDS:  # both may query a database
                    looked = now
                    if self._stopped():
                        raise Interrupted
                    self._progress(done, len(questions))
        finally:
            # questions that wait are dropped, those that are being asked end soon
            self._client.stop.set()
            pool.shutdown(cancel_futures=True)
            self._client.stop.clear()
            self._store(futures, futures)
        return failed

    def _store(
        self, keys: Mapping[Future[Choice | None], str], ended: Iterable[Future[Choice | None]]
    ) -> None:
        """Keep the answers of questions that have one."""
        with self._path.open("a", encoding="utf-8") as file:
            for future in ended:
                if future.cancelled() or future.exception() is not None:
                    continue
                key, answer = keys[future], future.result() or INVALID
                if key not in self._known:
                    self._known[key] = answer
                    # begins with a line break, as a kill may have cut the line before
                    file.write("\n" + json.dumps({"question": key, "answer": answer}))

    def _repeated(self, asked: Question) -> Choice | None:
        """Ask until there is a response, PAUSES apart. Raise JudgeFailed."""
        pair, swapped = asked
        for pause in (*PAUSES, None):
            try:
                return choice_of(self._client.ask(question(pair, swapped=swapped), schema=SCHEMA))
            except JudgeFailed as error:
                if not error.again or pause is None or self._client.stop.wait(pause):
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _key(self, asked: Question) -> str:
        pair, swapped = asked
        content = [self._client.address, self._client.model, question(pair, swapped=swapped)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _chosen(answer: str, *, swapped: bool) -> Chosen:
    if answer == INVALID:
        return None
    if answer == "tie":
        return "tie"
    return "first" if (answer == "A") != swapped else "second"


def _stored(path: Path) -> Iterator[tuple[str, str]]:
    """Yield stored questions and answers; a line that was cut by a kill is left out."""
    if not path.exists():
        return
    valid = {INVALID, *get_args(Choice)}
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and found.get("answer") in valid:
                yield str(found.get("question")), str(found["answer"])
