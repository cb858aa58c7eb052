"""Probes are answered like prompts, and no measure knows them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import needs_compiled
from tests.trainer.evaluation.test_continuation import asked, make, places  # noqa: F401
from tests.trainer.evaluation.test_evaluate import change, report_of
from trainer.errors import Refused
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.versions import Question
from trainer.models.loading import LoadedBase

pytestmark = pytest.mark.slow


def write_probes(eval_dir: Path, *contents: str) -> None:
    lines = [
        json.dumps({"id": str(number), "messages": [{"role": "user", "content": content}]})
        for number, content in enumerate(contents, start=1)
    ]
    (eval_dir / "probes.jsonl").write_text("".join(line + "\n" for line in lines))


def measured(report: dict[str, Any]) -> dict[str, Any]:
    return {**report, "probes": None, "seconds": None}


@needs_compiled
def test_probes_are_reported_and_change_no_measure(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path
) -> None:
    eval_dir = make(tmp_path, tiny, tiny_dir)
    evaluate(eval_dir)
    without = report_of(eval_dir)
    assert without["probes"] == []

    other = make(tmp_path, tiny, tiny_dir, "other")
    write_probes(other, "What is it?", "Question 0?")
    evaluate(other)
    report = report_of(other)
    assert measured(report) == measured(without)
    assert [probe["id"] for probe in report["probes"]] == ["1", "2"]
    for probe in report["probes"]:
        assert list(probe) == ["id", "messages", "answers"]
        assert list(probe["answers"]) == ["bot@1", "base"]
        for answers in probe["answers"].values():
            assert [set(answer) for answer in answers] == [{"text", "finish_reason"}] * 2
    first, second = report["probes"][0]["answers"]["base"]
    assert first != second, "each answer has a seed of its own"


@needs_compiled
def test_stored_answers_to_probes_are_used(
    tmp_path: Path,
    tiny: LoadedBase,
    tiny_dir: Path,
    asked: list[Question],  # noqa: F811
) -> None:
    eval_dir = make(tmp_path, tiny, tiny_dir)
    write_probes(eval_dir, "What is it?")
    evaluate(eval_dir)
    before = report_of(eval_dir)["probes"][0]["answers"]
    assert len([place for place in places(eval_dir) if place[1] == "probe"]) == 4
    asked.clear()
    evaluate(eval_dir)
    assert asked == []
    write_probes(eval_dir, "What is it?", "And this?")
    change(eval_dir, answers_per_prompt=3)
    evaluate(eval_dir)
    # three prompts and a probe need one more answer of two versions each, the new probe three
    assert len(asked) == 2 * (3 + 1 + 3)
    after = report_of(eval_dir)["probes"][0]["answers"]
    assert {name: answers[:2] for name, answers in after.items()} == before


def test_probe_that_is_too_long_is_reported_without_answers(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path
) -> None:
    eval_dir = make(tmp_path, tiny, tiny_dir)
    write_probes(eval_dir, "word " * 5_000, "Short?")
    evaluate(eval_dir)
    long, short = report_of(eval_dir)["probes"]
    assert long["answers"] == {"bot@1": [], "base": []}
    assert len(short["answers"]["bot@1"]) == 2


def test_faulty_probes_are_refused_with_their_line(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path
) -> None:
    eval_dir = make(tmp_path, tiny, tiny_dir)
    (eval_dir / "probes.jsonl").write_text('{"id": "1", "messages": []}\n')
    with pytest.raises(Refused, match=r"probes\.jsonl line 1"):
        evaluate(eval_dir)
