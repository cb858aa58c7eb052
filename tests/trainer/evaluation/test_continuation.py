"""An evaluation that is continued samples only what is missing and ends with the same report."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_tiny_adapter
from tests.trainer.conftest import needs_compiled
from tests.trainer.evaluation.test_evaluate import change, make_eval, report_of
from trainer.engine import batch
from trainer.errors import Cancelled
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.sampling import answer_seed
from trainer.evaluation.versions import Question, Versions
from trainer.models.loading import LoadedBase

pytestmark = pytest.mark.slow


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Question]:
    """Record the questions that are sampled."""
    found: list[Question] = []
    answers = Versions.answers

    def watched(self: Versions, questions: list[Question], **given: Any) -> Any:
        found.extend(questions)
        return answers(self, questions, **given)

    monkeypatch.setattr(Versions, "answers", watched)
    return found


def make(tmp_path: Path, tiny: LoadedBase, tiny_dir: Path, name: str = "one", **given: Any) -> Path:
    """Write an evaluation of one adapter and the base in a directory of its own."""
    (tmp_path / name).mkdir()
    make_tiny_adapter(tmp_path / name / "adapter", tiny)
    eval_dir = make_eval(tmp_path / name, tiny_dir, {"bot@1": "../adapter", "base": None})
    change(eval_dir, **given)
    return eval_dir


def without_seconds(eval_dir: Path) -> dict[str, Any]:
    return {**report_of(eval_dir), "seconds": None}


def places(eval_dir: Path) -> list[tuple[str, str, str, int]]:
    """Return version, kind, prompt and number of each stored answer, in the file's order."""
    lines = (eval_dir / "answers.jsonl").read_text().splitlines()
    return [
        (*(raw[key] for key in ("version", "kind", "id")), raw["index"])
        for raw in map(json.loads, lines)
    ]


@needs_compiled
def test_more_answers_per_prompt_sample_only_the_new_ones(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path, asked: list[Question]
) -> None:
    """3 prompts, 2 versions; 2 answers for the KL of the adapter."""
    eval_dir = make(tmp_path, tiny, tiny_dir, answers_per_prompt=1)
    evaluate(eval_dir)
    assert len(asked) == 3 * 2 + 2
    first = report_of(eval_dir)
    asked.clear()
    change(eval_dir, answers_per_prompt=3)
    evaluate(eval_dir)
    assert len(asked) == 3 * 2 * 2
    assert len(set(places(eval_dir))) == len(places(eval_dir)) == 3 * 3 * 2 + 2

    once = make(tmp_path, tiny, tiny_dir, "once", answers_per_prompt=3)
    evaluate(once)
    assert without_seconds(eval_dir) == without_seconds(once)
    for before, after in zip(first["answers"], report_of(once)["answers"], strict=True):
        known, more = texts(before), texts(after)
        assert known == {name: group[:1] for name, group in more.items()}


@pytest.mark.long
@needs_compiled
def test_more_prompts_sample_only_the_new_ones(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path, asked: list[Question]
) -> None:
    """Also where the new prompt comes first: an answer does not depend on its place."""
    eval_dir = make(tmp_path, tiny, tiny_dir)
    evaluate(eval_dir)
    before = {item["id"]: texts(item) for item in report_of(eval_dir)["answers"]}
    asked.clear()
    path = eval_dir / "prompts.jsonl"
    fresh = {"id": "new", "messages": [{"role": "user", "content": "Hm?"}]}
    path.write_text(json.dumps(fresh) + "\n" + path.read_text())
    evaluate(eval_dir)
    assert len(asked) == 2 * 2 + 1, "two answers of two versions, and one for the KL"
    after = {item["id"]: texts(item) for item in report_of(eval_dir)["answers"]}
    assert list(after) == ["new", "p0", "p1", "p2"]
    assert {key: after[key] for key in before} == before


def test_finished_evaluation_samples_nothing_again(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path, asked: list[Question]
) -> None:
    eval_dir = make(tmp_path, tiny, tiny_dir)
    evaluate(eval_dir)
    before = without_seconds(eval_dir)
    asked.clear()
    evaluate(eval_dir)
    assert asked == []
    assert without_seconds(eval_dir) == before


@pytest.mark.parametrize(
    ("settings", "sampled"),
    [
        # 12 answers and 2 for the KL, whose sampling has its own settings
        ({"temperature": 0.9}, 12),
        pytest.param({"top_p": 0.9}, 12, marks=pytest.mark.long),
        pytest.param({"max_tokens": 11}, 12, marks=pytest.mark.long),
        ({"seed": 4}, 14),
        pytest.param({"dtype": "bfloat16"}, 14, marks=pytest.mark.long),
    ],
)
def test_answers_of_other_settings_are_not_reused(
    tmp_path: Path,
    tiny: LoadedBase,
    tiny_dir: Path,
    asked: list[Question],
    settings: dict[str, Any],
    sampled: int,
) -> None:
    eval_dir = make(tmp_path, tiny, tiny_dir)
    evaluate(eval_dir)
    asked.clear()
    change(eval_dir, **settings)
    evaluate(eval_dir)
    assert len(asked) == sampled


def test_answers_of_other_weights_or_prompts_are_not_reused(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path, asked: list[Question]
) -> None:
    eval_dir = make(tmp_path, tiny, tiny_dir)
    evaluate(eval_dir)
    asked.clear()
    make_tiny_adapter(tmp_path / "one" / "adapter", tiny, seed=9)
    evaluate(eval_dir)
    assert {question.version for question in asked} == {"bot@1"}
    assert len(asked) == 3 * 2 + 2
    asked.clear()
    path = eval_dir / "prompts.jsonl"
    path.write_text(path.read_text().replace("Question 2?", "Question two?"))
    evaluate(eval_dir)
    assert len(asked) == 2 * 2, "the third prompt is not one of the two for the KL"


@needs_compiled
def test_cancelled_evaluation_continues_with_the_same_answers(
    tmp_path: Path,
    tiny: LoadedBase,
    tiny_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[Question],
) -> None:
    whole = make(tmp_path, tiny, tiny_dir, "whole")
    evaluate(whole)
    asked.clear()
    eval_dir = make(tmp_path, tiny, tiny_dir)
    finished: list[int] = []
    take = batch.Row.take

    def watched(self: batch.Row, token: int) -> str:
        piece = take(self, token)
        if self.finish_reason is not None:
            finished.append(1)
            if len(finished) == 4:
                os.kill(os.getpid(), signal.SIGTERM)
        return piece

    monkeypatch.setattr(batch.Row, "take", watched)
    with pytest.raises(Cancelled):
        evaluate(eval_dir)
    kept = len(places(eval_dir))
    assert 4 <= kept < 14
    asked.clear()
    evaluate(eval_dir)
    assert len(asked) == 14 - kept
    assert without_seconds(eval_dir) == without_seconds(whole)


@pytest.mark.long
@needs_compiled
def test_killed_process_leaves_answers_that_are_used(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path, asked: list[Question]
) -> None:
    """SIGKILL after the first stored answers: nothing can clean up."""
    eval_dir = make(tmp_path, tiny, tiny_dir, answers_per_prompt=40, max_tokens=200)
    command = [sys.executable, "-m", "trainer", "evaluate", str(eval_dir)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        path = eval_dir / "answers.jsonl"
        while not path.exists() or path.stat().st_size == 0:
            assert child.poll() is None, "the evaluation ended before it was killed"
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait()
    content = path.read_bytes()
    kept = content.count(b"\n")
    assert 0 < kept < 242
    evaluate(eval_dir)
    assert len(asked) == 242 - kept
    assert path.read_bytes().startswith(content[: content.rfind(b"\n") + 1])
    assert len(set(places(eval_dir))) == 242


def test_seed_of_an_answer_depends_on_what_identifies_it() -> None:
    known = answer_seed(1, "answer", "p", 0)
    others = [
        answer_seed(2, "answer", "p", 0),
        answer_seed(1, "kl", "p", 0),
        answer_seed(1, "answer", "q", 0),
        answer_seed(1, "answer", "p", 1),
        answer_seed(1, "answer", "p0", 1),
    ]
    assert len({known, *others}) == 6
    assert answer_seed(1, "answer", "p", 0) == known
    # answers stored by earlier versions refer to it
    assert known == 2683627653563955335


def texts(item: dict[str, Any]) -> dict[str, list[str]]:
    return {name: [found["text"] for found in group] for name, group in item["answers"].items()}
