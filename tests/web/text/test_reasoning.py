"""Reasoning in answers is folded, and is the same text that the trainer separates."""

import pytest

from feedback_app.feedback.templatetags.model_text import measured_text, model_text, turn_text
from feedback_app.web.text import reasoning
from feedback_app.web.text.reasoning import Parts, answer_of, parts_of
from trainer.data import reasoning as trained

TEXTS = [
    "Hello.",
    "<think>\na\n</think>\n\nb",
    "<think>a",
    "<think></think>b",
    "a\n</think>\nb",
    "Write <think> and </think> around it.",
    "<think>a</think>\n<think>b</think>c",
    "[THINK]a[/THINK]b",
    "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b",
]


def test_marks_are_those_of_the_trainer() -> None:
    assert reasoning.MARKS == trained.MARKS


@pytest.mark.parametrize("text", TEXTS)
def test_answer_begins_where_the_trainers_does(text: str) -> None:
    start = trained.answer_start(text)
    parts = parts_of(text)
    assert parts.finished == (start is not None)
    assert parts.answer.strip() == ("" if start is None else text[start:].strip())


def test_parts_have_no_marks() -> None:
    assert parts_of("<think>\na\n</think>\n\nb") == Parts("a", "b")
    assert parts_of("<think>a") == Parts("a", "", finished=False)
    assert parts_of(" Hello.") == Parts("", " Hello.")
    assert answer_of("<think>a</think>b") == "b"


def test_reasoning_is_folded_above_the_answer() -> None:
    html = model_text("<think>\n**sure**\n</think>\n\nYes.")
    folded, _, answer = html.partition("</details>")
    assert "<summary>Reasoning</summary>" in folded
    assert "<strong>sure</strong>" in folded
    assert answer == '<div class="prose" hx-disable><p>Yes.</p>\n</div>'
    assert "think" not in html


def test_unfinished_reasoning_says_that_no_answer_follows() -> None:
    html = model_text("<think>\nwell")
    assert "Reasoning, not finished" in html
    assert "(no answer after it)" in html


def test_reasoning_that_an_evaluation_has_separated_is_folded() -> None:
    hostile = "<script>alert(1)</script>"
    html = measured_text({"text": "Yes.", "reasoning": f"well {hostile}"})
    folded, _, answer = html.partition("</details>")
    assert "<summary>Reasoning</summary>" in folded
    assert hostile not in html
    assert "<p>Yes.</p>" in answer
    assert "Reasoning, not finished" in measured_text({"text": "", "reasoning": "well"})
    assert measured_text({"text": "Yes."}) == model_text("Yes.")
    for nothing in (None, {"text": "", "reasoning": ""}):
        assert "(empty)" in measured_text(nothing)


def test_empty_reasoning_is_not_shown() -> None:
    assert "<details" not in model_text("<think>\n\n</think>\n\nYes.")


def test_call_and_result_of_a_tool_are_folded_and_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    call = {"id": "1", "type": "function", "function": {"name": hostile, "arguments": hostile}}
    asked = turn_text({"role": "assistant", "content": "", "tool_calls": [call]})
    result = turn_text({"role": "tool", "content": hostile, "tool_call_id": "1"})
    for html in (asked, result):
        assert "<script" not in html
        assert "&lt;script&gt;" in html
        assert "<details" in html
    assert "Call of &lt;script" in asked
    assert "Result of a tool" in result


def test_message_with_text_and_a_call_shows_both() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    html = turn_text({"role": "assistant", "content": "One moment.", "tool_calls": [call]})
    assert html.index("One moment.") < html.index("Call of weather")
    assert "<details" not in turn_text({"role": "user", "content": "Hi"})


def test_long_result_is_cut() -> None:
    html = turn_text({"role": "tool", "content": "x" * 1_000_000, "tool_call_id": "1"})
    assert len(html) < 30_000
    assert "more characters" in html
