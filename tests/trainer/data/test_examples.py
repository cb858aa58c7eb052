"""examples.jsonl: parsed completely, refused with line numbers, and written unchanged."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import example
from trainer.data.examples import Example, read_examples, write_examples
from trainer.errors import Refused

GOOD: dict[str, Any] = {
    "id": "a",
    "prompt": [{"role": "user", "content": "Hi?"}],
    "completion": [{"role": "assistant", "content": "Hello."}],
    "label": True,
}


def read(tmp_path: Path, *lines: object) -> list[Example]:
    path = tmp_path / "examples.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return read_examples(path)


def test_examples_survive_writing_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    written = [
        example(1),
        example(2, weight=0.5, prompt_token_ids=(1, 2), completion_token_ids=(3,)),
        example(3, completion="Zeile\u2028zwei: „ja“ 🙂", finish_reason="length"),
    ]
    write_examples(path, written)
    assert read_examples(path) == written


def test_minimal_example_has_defaults(tmp_path: Path) -> None:
    (found,) = read(tmp_path, "\ufeff" + json.dumps(GOOD), "", "  ")
    assert (found.weight, found.finish_reason, found.completion_token_ids) == (1.0, None, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": "yes"}, "label must be true or false"),
        ({"label": None}, "label must be true or false"),
        ({"id": ""}, "id must be a text"),
        ({"prompt": []}, "prompt must be a list"),
        ({"prompt": [{"role": "wizard", "content": "x"}]}, "needs a role"),
        ({"prompt": [{"role": "user", "content": None}]}, "needs a role"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "must end with a user's turn"),
        ({"completion": []}, "one assistant message"),
        ({"completion": [{"role": "user", "content": "x"}]}, "one assistant message"),
        ({"completion": [{"role": "assistant", "content": " \n"}]}, "completion is empty"),
        ({"weight": 0}, "weight must be above 0"),
        ({"weight": "1"}, "weight must be a number"),
        ({"completion_token_ids": []}, "completion_token_ids must be null or a list"),
        ({"prompt_token_ids": [1, -2]}, "prompt_token_ids must be null or a list"),
        ({"finish_reason": "tired"}, "finish_reason must be"),
        ({"rating": 5}, "unknown field 'rating'"),
    ],
)
def test_invalid_example_is_refused_with_its_line_number(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Refused) as caught:
        read(tmp_path, GOOD, {**GOOD, "id": "b", **change})
    assert "examples.jsonl line 2: " in str(caught.value)
    assert reason in str(caught.value)


def test_errors_of_many_lines_are_reported_together_up_to_a_limit(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        read(tmp_path, "{", "[1]", GOOD, GOOD, *(["no"] * 100))
    text = str(caught.value)
    assert "line 1: not valid JSON" in text
    assert "line 2: not a JSON object" in text
    assert "line 4: id 'a' occurs twice" in text
    assert text.endswith("and 83 more")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"examples\.jsonl is missing"):
        read_examples(tmp_path / "examples.jsonl")
