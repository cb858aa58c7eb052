"""report.json: the same measurements for every candidate, checked against known values."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_tiny_adapter
from tests.trainer.conftest import events, example
from trainer.artifacts.adapter_directory import MANIFEST
from trainer.data.examples import write_examples
from trainer.errors import BadArtifact, NotWritten, Refused
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.text_metrics import (
    distinct_bigrams,
    is_relevant,
    mean,
    ranking,
    repeats,
    share,
    words,
)
from trainer.models.loading import LoadedBase

pytestmark = pytest.mark.slow


def make_eval(tmp_path: Path, tiny_dir: Path, candidates: dict[str, str | None]) -> Path:
    eval_dir = tmp_path / "eval"
    eval_dir.mkdir()
    settings = {
        "base_model": str(tiny_dir),
        "candidates": [{"name": name, "path": path} for name, path in candidates.items()],
        "max_tokens": 12,
        "temperature": 0.8,
        "top_p": 0.95,
        "answers_per_prompt": 2,
        "kl_prompts": 2,
        "seed": 3,
        "dtype": "float32",
        "device": "cpu",
    }
    (eval_dir / "evaluate.json").write_text(json.dumps(settings))
    write_examples(eval_dir / "heldout.jsonl", [example(number) for number in range(6)])
    prompts = [
        {"id": f"p{n}", "topic": "x", "messages": [{"role": "user", "content": f"Question {n}?"}]}
        for n in range(3)
    ]
    (eval_dir / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    return eval_dir


def report_of(eval_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((eval_dir / "report.json").read_text())
    return found


@pytest.mark.slow
def test_report_measures_base_and_adapters_side_by_side(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path
) -> None:
    make_tiny_adapter(tmp_path / "one", tiny, name="starter@1", rank=4)
    make_tiny_adapter(tmp_path / "two", tiny, name="starter@2", rank=8, seed=2)
    eval_dir = make_eval(
        tmp_path,
        tiny_dir,
        {"starter@2": str(tmp_path / "two"), "base": None, "starter@1": "../one"},
    )
    evaluate(eval_dir)
    report = report_of(eval_dir)

    assert list(report["candidates"]) == ["starter@2", "base", "starter@1"]
    for measures in report["candidates"].values():
        assert set(measures) == {
            "ranking",
            "finished",
            "words",
            "repetition",
            "relevance",
            "kl_per_token",
            "neutral_logprob",
            "distinct",
        }
    for name, measures in report["candidates"].items():
        texts = [found["text"] for item in report["answers"] for found in item["answers"][name]]
        counts = [float(len(words(text))) for text in texts]
        assert measures["words"] == asdict(mean(counts))
        ends = [
            found["finish_reason"] == "stop"
            for item in report["answers"]
            for found in item["answers"][name]
        ]
        assert measures["finished"] == asdict(share(ends))
    base, one = report["candidates"]["base"], report["candidates"]["starter@1"]
    assert base["ranking"] == {"value": 0.5, "low": None, "high": None, "n": 6}
    assert base["kl_per_token"]["value"] == 0
    assert one["kl_per_token"]["value"] > 0.05
    assert one["neutral_logprob"]["value"] != base["neutral_logprob"]["value"]
    assert one["finished"]["n"] == 6
    assert one["kl_per_token"]["n"] == 2

    assert [item["id"] for item in report["answers"]] == ["p0", "p1", "p2"]
    for item in report["answers"]:
        assert {len(found) for found in item["answers"].values()} == {2}
        assert item["answers"]["base"][0].keys() == {"text", "finish_reason", "tokens", "up"}
    rewards = [item["rewards"] for item in report["heldout"]]
    assert all(reward["base"] == 0 for reward in rewards)
    assert all(abs(reward["starter@1"]) > 0.01 for reward in rewards)
    liked = [
        r["starter@1"] for r, item in zip(rewards, report["heldout"], strict=True) if item["label"]
    ]
    disliked = [
        r["starter@1"]
        for r, item in zip(rewards, report["heldout"], strict=True)
        if not item["label"]
    ]
    assert one["ranking"]["value"] == ranking(liked, disliked).value
    assert {event["phase"] for event in events(eval_dir, "phase")} == {
        "loading",
        "sampling",
        "scoring",
    }


@pytest.mark.slow
def test_candidates_do_not_affect_each_other(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path
) -> None:
    make_tiny_adapter(tmp_path / "one", tiny)
    alone = make_eval(tmp_path, tiny_dir, {"base": None})
    evaluate(alone)
    (tmp_path / "b").mkdir()
    after = make_eval(tmp_path / "b", tiny_dir, {"x": str(tmp_path / "one"), "base": None})
    evaluate(after)
    first, second = report_of(alone), report_of(after)
    assert first["candidates"]["base"] == second["candidates"]["base"]
    assert [item["answers"]["base"] for item in first["answers"]] == [
        item["answers"]["base"] for item in second["answers"]
    ]


def test_errors_of_the_config_are_reported_together(tmp_path: Path, tiny_dir: Path) -> None:
    eval_dir = make_eval(tmp_path, tiny_dir, {"base": None})
    (eval_dir / "evaluate.json").write_text(
        json.dumps({"candidates": [], "temperature": -1, "seed": 1.5, "speed": 9})
    )
    with pytest.raises(Refused) as caught:
        evaluate(eval_dir)
    assert len(caught.value.faults) == 5


def test_prompt_without_a_question_is_refused_with_its_line(tmp_path: Path, tiny_dir: Path) -> None:
    eval_dir = make_eval(tmp_path, tiny_dir, {"base": None})
    (eval_dir / "prompts.jsonl").write_text('{"id": "a", "messages": []}\n')
    with pytest.raises(Refused, match=r"prompts\.jsonl line 1: messages must be a list"):
        evaluate(eval_dir)


def test_damaged_adapter_is_refused_before_the_base_is_loaded(
    tmp_path: Path, tiny: LoadedBase
) -> None:
    make_tiny_adapter(tmp_path / "one", tiny)
    (tmp_path / "one" / MANIFEST).unlink()
    eval_dir = make_eval(tmp_path, Path("/no/such/model"), {"x": str(tmp_path / "one")})
    with pytest.raises(BadArtifact, match="is missing"):
        evaluate(eval_dir)
    assert events(eval_dir, "failed")


def test_adapter_of_another_base_is_refused(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path
) -> None:
    from dataclasses import replace

    make_tiny_adapter(tmp_path / "one", replace(tiny, fingerprint="f" * 64))
    eval_dir = make_eval(tmp_path, tiny_dir, {"x": str(tmp_path / "one")})
    with pytest.raises(BadArtifact, match="trained on another base model"):
        evaluate(eval_dir)


def test_report_on_a_full_disk_can_be_written_later(tmp_path: Path, tiny_dir: Path) -> None:
    eval_dir = make_eval(tmp_path, tiny_dir, {"base": None})
    (eval_dir / "report.partial").symlink_to("/dev/full")
    with pytest.raises(NotWritten, match=r"eval cannot be written \(No space left on device\)"):
        evaluate(eval_dir)
    assert not (eval_dir / "report.json").exists()
    (eval_dir / "report.partial").unlink()
    evaluate(eval_dir)
    assert report_of(eval_dir)["candidates"]


def test_evaluation_without_held_out_examples_has_no_ranking(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path
) -> None:
    make_tiny_adapter(tmp_path / "one", tiny)
    eval_dir = make_eval(tmp_path, tiny_dir, {"x": str(tmp_path / "one")})
    (eval_dir / "heldout.jsonl").write_text("")
    evaluate(eval_dir)
    assert report_of(eval_dir)["candidates"]["x"]["ranking"]["value"] is None


def test_share_has_wilsons_interval() -> None:
    # 8 of 10: Wilson's 95 % interval is 0.4902 to 0.9433
    found = share([True] * 8 + [False] * 2)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.4902, abs=1e-4)
    assert found.high == pytest.approx(0.9433, abs=1e-4)
    assert share([]).value is None
    everyone = share([True] * 5)
    assert everyone.high == 1.0
    assert everyone.low == pytest.approx(0.5655, abs=1e-4)


def test_mean_has_a_reproducible_bootstrap_interval() -> None:
    values = [float(number) for number in range(100)]
    found = mean(values, seed=1)
    assert found == mean(values, seed=1)
    assert found.value == 49.5
    # ± 1.96 · σ/√n with σ = 28.87, n = 100 is ± 5.66
    assert found.low == pytest.approx(49.5 - 5.66, abs=1.2)
    assert found.high == pytest.approx(49.5 + 5.66, abs=1.2)
    assert mean([]).value is None


def test_ranking_counts_pairs_and_halves_ties() -> None:
    # pairs: 2>1, 2=2 (½), 0<1, 0<2 → 1.5 of 4
    assert ranking([2.0, 0.0], [1.0, 2.0]).value == 0.375
    assert ranking([1.0], []).value is None
    assert ranking([5.0, 6.0], [1.0, 2.0]).value == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two three four, five. One two three four!", True),
        ("one two three four two three four five", False),
        ("ha ha ha ha ha", True),
        ("ha ha ha", False),
        ("", False),
    ],
)
def test_repetition_is_a_sequence_of_four_words_twice(text: str, expected: bool) -> None:
    assert repeats(text) is expected


@pytest.mark.parametrize(
    ("answer", "question", "expected"),
    [
        ("Vaccines train the body.", "How does a vaccine protect us?", True),
        ("Water it daily.", "Should I be watering my basil?", True),
        ("Lemonade & icecream.", "What causes a rainbow?", False),
        ("The best thing is to do it.", "What is the best thing about rain?", False),
        ("Anything.", "Why me?", True),
    ],
)
def test_relevance_is_a_shared_content_word(answer: str, question: str, expected: bool) -> None:
    assert is_relevant(answer, question) is expected


def test_words_and_distinct_pairs() -> None:
    assert words("Don't stop – it's 5 o’clock!") == ["don't", "stop", "it's", "5", "o’clock"]
    # a b, b a, a b: two different pairs of three
    assert distinct_bigrams(["a b a b"]) == pytest.approx(2 / 3)
    assert distinct_bigrams(["one", ""]) is None
    assert not math.isnan(distinct_bigrams(["a b", "a b"]) or 0)
