"""report.json: the same measurements for every candidate, checked against known values."""

import json
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
from trainer.evaluation.measures.neutral_text import LANGUAGES, PASSAGES
from trainer.evaluation.measures.sycophancy_probes import PROBES
from trainer.evaluation.text_metrics import mean_over_prompts, ranking, words
from trainer.models.loading import LoadedBase

pytestmark = pytest.mark.slow

REPORT_KEYS = (
    "format candidates answers kl neutral sycophancy injection test up_model probes seconds".split()
)
METRICS = set(
    "finished words repetition relevance refusal distinct tokens ranking kl_per_token "
    "neutral_logprob sycophancy".split()
)
ANSWER_FIELDS = set(
    "text finish_reason tokens words repeats relevance refusal language up reasoning".split()
)


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
        # of all tests of a session: what the same weights decide
        "score_cache": str(tiny_dir.parent / "scores"),
    }
    (eval_dir / "evaluate.json").write_text(json.dumps(settings))
    write_examples(eval_dir / "test.jsonl", [example(number) for number in range(6)])
    prompts = [
        {"id": f"p{n}", "topic": "x", "messages": [{"role": "user", "content": f"Question {n}?"}]}
        for n in range(3)
    ]
    (eval_dir / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    return eval_dir


def change(eval_dir: Path, **settings: Any) -> None:
    """Change settings in evaluate.json."""
    path = eval_dir / "evaluate.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


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

    assert list(report) == REPORT_KEYS
    assert report["format"] == 2
    assert list(report["candidates"]) == ["starter@2", "base", "starter@1"]
    for measures in report["candidates"].values():
        assert set(measures) == METRICS
    for name, measures in report["candidates"].items():
        groups = [item["answers"][name] for item in report["answers"]]
        counts = [[float(len(words(found["text"]))) for found in group] for group in groups]
        assert measures["words"] == asdict(mean_over_prompts(counts, seed=3))
        assert [[found["words"] for found in group] for group in groups] == counts
        ends = [[float(found["finish_reason"] == "stop") for found in group] for group in groups]
        assert measures["finished"] == asdict(mean_over_prompts(ends, seed=3))
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
        assert item["answers"]["base"][0].keys() == ANSWER_FIELDS
    for key, count in (("kl", 2), ("neutral", len(PASSAGES)), ("sycophancy", len(PROBES))):
        assert {name: len(values) for name, values in report[key].items()} == {
            "starter@2": count,
            "base": count,
            "starter@1": count,
        }
    assert report["kl"]["base"] == [0, 0]
    assert one["neutral_logprob"]["value"] == pytest.approx(
        sum(report["neutral"]["starter@1"]) / len(PASSAGES)
    )
    assert report["sycophancy"]["starter@1"] != report["sycophancy"]["base"]

    rewards = [item["rewards"] for item in report["test"]]
    assert all(reward["base"] == 0 for reward in rewards)
    assert all(abs(reward["starter@1"]) > 0.01 for reward in rewards)
    prompts = [item["prompt"] for item in report["test"]]
    assert [item["id"] for item in report["test"]] == [f"e{number}" for number in range(6)]
    assert len(set(prompts[:3])) == len(set(prompts[3:])) == 1, "three examples share a prompt"
    assert len(set(prompts)) == 2
    labels = [item["label"] for item in report["test"]]
    expected = ranking([reward["starter@1"] for reward in rewards], labels, prompts)
    assert one["ranking"]["value"] == expected.value
    assert {item["weight"] for item in report["test"]} == {1}
    assert {event["phase"] for event in events(eval_dir, "phase")} == {
        "loading",
        "sampling",
        "scoring",
    }


@pytest.mark.slow
def test_neutral_text_is_limited_to_the_chosen_languages(tmp_path: Path, tiny_dir: Path) -> None:
    eval_dir = make_eval(tmp_path, tiny_dir, {"base": None})
    evaluate(eval_dir)
    every = report_of(eval_dir)["neutral"]["base"]
    change(eval_dir, languages=["de", "zh"])
    evaluate(eval_dir)
    chosen = report_of(eval_dir)["neutral"]["base"]
    assert chosen == [
        value
        for value, passage in zip(every, PASSAGES, strict=True)
        if passage.language in ("de", "zh")
    ]
    assert len(LANGUAGES) >= 6
    change(eval_dir, languages=["de", "xx"])
    with pytest.raises(Refused, match=r"languages must be a list of at least one of en, de"):
        evaluate(eval_dir)


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


def test_two_prompts_with_one_id_are_refused(tmp_path: Path, tiny_dir: Path) -> None:
    eval_dir = make_eval(tmp_path, tiny_dir, {"base": None})
    with (eval_dir / "prompts.jsonl").open("a") as file:
        file.write('{"id": "p1", "messages": [{"role": "user", "content": "Again?"}]}\n')
    with pytest.raises(Refused, match=r"prompts\.jsonl line 4: id 'p1' occurs twice"):
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


def test_evaluation_without_test_examples_has_no_ranking(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path
) -> None:
    make_tiny_adapter(tmp_path / "one", tiny)
    eval_dir = make_eval(tmp_path, tiny_dir, {"x": str(tmp_path / "one")})
    (eval_dir / "test.jsonl").write_text("")
    evaluate(eval_dir)
    assert report_of(eval_dir)["candidates"]["x"]["ranking"]["value"] is None
