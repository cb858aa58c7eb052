"""Reasoning, calls of tools and variables of chat templates: training reads what serving read."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.trainer.conftest import example
from tests.trainer.data.chat_families import FAMILIES, Family
from tests.trainer.data.modern_families import MODERN
from trainer.chats.settings import (
    KWARGS_CHARACTERS,
    MOST_KWARGS,
    READ,
    RESERVED,
    TRAINED,
    ChatSettings,
    template_kwargs_fault,
)
from trainer.data.chat import answer_end, prompt_ids
from trainer.data.examples import read_examples, write_examples
from trainer.data.messages import messages_of, tools_fault
from trainer.data.reasoning import MARKS, answer_index, answer_start
from trainer.data.tokenise import Tokenised, tokenise, tokenise_all
from trainer.engine.http.protocol import ChatRequest
from trainer.errors import Refused
from trainer.evaluation.config import read_prompts

Talk = list[dict[str, Any]]

ANSWER = "It rains in Oslo."
THOUGHT = "<think>\nLook it up. Über.\n</think>\n\n"
SYSTEM: dict[str, Any] = {"role": "system", "content": "Be short."}
USER: dict[str, Any] = {"role": "user", "content": "And Oslo?"}
CALL: dict[str, Any] = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
}
CALLING: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT: dict[str, Any] = {"role": "tool", "tool_call_id": "call00001", "content": "Rain"}
PLAIN = [USER]
WITH_TOOLS = [USER, CALLING, RESULT]
WITH_THOUGHT: Talk = [
    {"role": "user", "content": "Hi?"},
    {"role": "assistant", "content": THOUGHT + "Hello."},
    USER,
]
TALKS: dict[str, Talk] = {
    "plain": PLAIN,
    "system": [SYSTEM, USER],
    "tools": WITH_TOOLS,
    "thought": WITH_THOUGHT,
}
VARIABLES: dict[str, dict[str, Any]] = {
    "none": {},
    "no-thinking": {"enable_thinking": False},
    "effort": {"reasoning_effort": "high"},
}
#: Templates without calls of tools; and Mistral's of these, without a system turn.
NO_TOOLS = {"gemma-3", "smollm-3", "opens-reasoning"}

each = pytest.mark.parametrize("family", MODERN.values(), ids=MODERN.keys())


def served(family: Family, talk: Talk, **variables: Any) -> tuple[int, ...]:
    """Return the ids that the engine computes on for a request with these messages."""
    body = {"model": "m", "messages": talk, "chat_template_kwargs": variables}
    request = ChatRequest.model_validate(body)
    messages = [message.model_dump(exclude_none=True) for message in request.messages]
    return tuple(prompt_ids(family.tokenizer, messages, request.chat_template_kwargs))


def trained(
    family: Family,
    talk: Talk,
    answer: str = ANSWER,
    *,
    reasoning: str = READ,
    variables: dict[str, Any] | None = None,
    max_length: int = 4096,
    **changes: Any,
) -> Tokenised | None:
    given = {"completion": answer, "prompt": messages_of(talk), **changes}
    chat = ChatSettings(variables or {}, reasoning)
    end = answer_end(family.model, family.tokenizer)
    return tokenise(
        example(1, **given), family.tokenizer, eos=end, max_length=max_length, chat=chat
    )


def ids_of(family: Family, text: str) -> tuple[int, ...]:
    return tuple(family.tokenizer.encode(text, add_special_tokens=False))


@each
@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("variables", VARIABLES)
@pytest.mark.parametrize("reasoning", [TRAINED, READ])
def test_training_reads_what_the_engine_reads_and_then_the_answer(
    family: Family, talk: str, variables: str, reasoning: str
) -> None:
    asked, given = TALKS[talk], VARIABLES[variables]
    if talk == "tools" and family.name in NO_TOOLS:
        for read in (served, trained):
            with pytest.raises(Refused, match="chat template has no calls of tools"):
                read(family, asked)  # type: ignore[operator]
        return
    prompt = served(family, asked, **given)
    end = (answer_end(family.model, family.tokenizer),)
    answer = ANSWER
    if family.name == "opens-reasoning":
        answer = "Look.\n</think>\n\n" + ANSWER
    found = trained(family, asked, answer, variables=given, reasoning=reasoning)

    assert found is not None
    assert (*found.prompt, *found.completion) == (*prompt, *ids_of(family, answer), *end)
    kept = answer if reasoning == TRAINED else ANSWER
    assert family.tokenizer.decode(found.completion[:-1]) == kept


@each
def test_variables_of_the_template_change_what_is_read(family: Family) -> None:
    by_variables = {name: served(family, PLAIN, **given) for name, given in VARIABLES.items()}
    changing = {
        "qwen-3": {"no-thinking"},
        "smollm-3": {"no-thinking"},
        "gpt-oss": {"effort"},
    }.get(family.name, set())
    changed = {name for name, ids in by_variables.items() if ids != by_variables["none"]}
    assert changed == changing


def test_without_thinking_the_prompt_ends_with_empty_reasoning() -> None:
    qwen = MODERN["qwen-3"]
    text = qwen.tokenizer.decode(served(qwen, PLAIN, enable_thinking=False))
    assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


@each
def test_call_and_result_are_in_the_text(family: Family) -> None:
    if family.name in NO_TOOLS:
        pytest.skip("no calls of tools")
    text = family.tokenizer.decode(served(family, WITH_TOOLS))
    assert "weather" in text
    assert '{"city": "Oslo"}' in text  # an object: not JSON within JSON
    assert "Rain" in text


@pytest.mark.parametrize("name", ["llama-2", "gemma-2", "smollm2", "phi-3", "glm-4"])
def test_earlier_templates_refuse_calls_instead_of_leaving_them_out(name: str) -> None:
    with pytest.raises(Refused, match="chat template has no calls of tools"):
        served(FAMILIES[name], WITH_TOOLS)


def test_what_a_template_refuses_of_a_call_is_reported_with_its_words() -> None:
    long = {**CALLING, "tool_calls": [{**CALL, "id": "call-1"}]}
    with pytest.raises(Refused, match="length 9"):
        served(MODERN["mistral-tools"], [USER, long, RESULT])
    two = {**CALLING, "tool_calls": [CALL, CALL]}
    with pytest.raises(Refused, match="single tool-calls"):
        served(MODERN["llama-3.1"], [USER, two, RESULT])


def test_examples_that_a_template_cannot_express_are_named_together() -> None:
    gemma = MODERN["gemma-3"]
    examples = [example(1, prompt=messages_of(WITH_TOOLS)), example(2)]
    with pytest.raises(Refused, match=r"1 example\(s\) have no prompt .*no calls of tools"):
        tokenise_all(examples, gemma.tokenizer, eos=1, vocabulary=10_000, max_length=400)


def test_arguments_that_are_no_object_stay_as_the_model_wrote_them() -> None:
    broken = {**CALL, "function": {"name": "weather", "arguments": '{"city": '}}
    talk = [USER, {**CALLING, "tool_calls": [broken]}, RESULT]
    qwen = MODERN["qwen-3"]
    assert '\\"city\\"' in qwen.tokenizer.decode(served(qwen, talk))


def test_result_stays_with_its_call_when_old_turns_are_cut() -> None:
    qwen = MODERN["qwen-3"]
    old = [{"role": "user", "content": "old " * 40}, {"role": "assistant", "content": "reply"}]
    least = served(qwen, WITH_TOOLS)
    room = len(least) + len(ids_of(qwen, ANSWER)) + 1
    found = trained(qwen, [*old, *WITH_TOOLS], max_length=room)
    assert found is not None
    assert found.prompt == least


# -- reasoning


@each
def test_reasoning_is_read_and_not_learned_by_served_ids_too(family: Family) -> None:
    end = answer_end(family.model, family.tokenizer)
    ids = (*ids_of(family, THOUGHT), *ids_of(family, ANSWER), end)
    text_only = trained(family, PLAIN, THOUGHT + ANSWER)
    by_ids = trained(
        family, PLAIN, THOUGHT + ANSWER, prompt_token_ids=(5, 6), completion_token_ids=ids
    )
    assert text_only is not None
    assert by_ids is not None
    assert by_ids.prompt == (5, 6, *ids_of(family, THOUGHT))
    assert by_ids.completion == (*ids_of(family, ANSWER), end)
    assert family.tokenizer.decode(text_only.completion[:-1]) == ANSWER
    learned = trained(family, PLAIN, THOUGHT + ANSWER, reasoning=TRAINED)
    assert learned is not None
    assert learned.length == text_only.length
    assert family.tokenizer.decode(learned.completion[:-1]) == THOUGHT + ANSWER


def test_channels_of_gpt_oss_are_reasoning_up_to_the_final_one() -> None:
    oss = MODERN["gpt-oss"]
    reasoning = (
        "<|channel|>analysis<|message|>Look it up.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>"
    )
    found = trained(oss, PLAIN, reasoning + ANSWER)
    assert found is not None
    assert found.prompt == (*served(oss, PLAIN), *ids_of(oss, reasoning))
    assert oss.tokenizer.decode(found.completion) == ANSWER + "<|return|>"


@pytest.mark.parametrize("answer", ["<think>\nLook it", "<think>\nLook.\n</think>\n\n"])
def test_answer_that_is_only_reasoning_is_left_out_and_named(answer: str) -> None:
    qwen = MODERN["qwen-3"]
    examples = [example(1, completion=answer, finish_reason="length"), example(2)]

    def read(reasoning: str) -> Any:
        chat = ChatSettings(reasoning=reasoning)
        return tokenise_all(
            examples, qwen.tokenizer, eos=2, vocabulary=10_000, max_length=400, chat=chat
        )

    assert [item.id for item in read(READ).examples] == ["e2"]
    assert read(READ).unanswered == ("e1",)
    assert read(READ).left_out == ()
    assert read(TRAINED).unanswered == ()
    assert len(read(TRAINED).examples) == 2


def test_unfinished_reasoning_that_the_template_opened_is_left_out() -> None:
    family = MODERN["opens-reasoning"]
    found = trained(family, PLAIN, "Look it up", finish_reason="length")
    assert found is not None
    assert found.completion == ()


@pytest.mark.parametrize(
    ("text", "opened", "start"),
    [
        ("Hello.", "", 0),
        ("<think>a</think>b", "", 16),
        (" \n<think>\na\n</think>\n\nb", "", 20),
        ("<think>a", "", None),
        ("a</think>b", "</think>", 9),
        ("a", "</think>", None),
        # the mark alone on a line ends reasoning that the template opened
        ("a\n</think>\nb", "", 10),
        # a text about marks has none
        ("Write <think> and </think> around it.", "", 0),
        ("<think>a</think><think>b</think>c", "", 32),
        ("[THINK]a[/THINK]b", "", 16),
        ("<think>a</thinking>b", "", None),
    ],
)
def test_where_the_answer_begins(text: str, opened: str, start: int | None) -> None:
    assert answer_start(text, opened=opened) == start


@pytest.mark.parametrize("marks", MARKS, ids=lambda marks: marks[0])
def test_every_pair_of_marks_is_known(marks: tuple[str, str]) -> None:
    begin, end = marks
    qwen = MODERN["qwen-3"]
    ids = ids_of(qwen, f"{begin}\nhm\n{end}\n\n{ANSWER}")
    index = answer_index(qwen.tokenizer, (1, 2), ids)
    assert index is not None
    assert qwen.tokenizer.decode(ids[index:]) == ANSWER


# -- definitions of tools

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
HOURS = {"type": "function", "function": {"name": "hours"}}
WITH_DEFINITIONS = {"qwen-3", "mistral-tools"}


def served_with(family: Family, talk: Talk, tools: list[dict[str, Any]]) -> tuple[int, ...]:
    """Return the ids that the engine computes on for a request with these definitions."""
    body = {"model": "m", "messages": talk, "tools": tools, "tool_choice": "none"}
    request = ChatRequest.model_validate(body)
    messages = [message.model_dump(exclude_none=True) for message in request.messages]
    return tuple(prompt_ids(family.tokenizer, messages, None, request.tools or ()))


@each
def test_training_reads_the_definitions_that_the_engine_reads(family: Family) -> None:
    if family.name not in WITH_DEFINITIONS:
        for read in (served_with, lambda *given: trained(*given[:2], tools=(WEATHER,))):
            with pytest.raises(Refused, match="chat template has no definitions of tools"):
                read(family, PLAIN[-1:], [WEATHER])
        return
    talk = PLAIN[-1:]
    read = served_with(family, talk, [WEATHER, HOURS])
    text = family.tokenizer.decode(read)
    for word in ("weather", "The weather of a place", "place", "hours"):
        assert word in text
    found = trained(family, talk, tools=(WEATHER, HOURS))
    assert found is not None
    assert found.prompt == read
    other = trained(family, talk, tools=(HOURS,))
    without = trained(family, talk)
    assert other is not None
    assert without is not None
    assert without.prompt == served(family, talk)
    assert len({found.prompt_key, other.prompt_key, without.prompt_key}) == 3


def test_prompt_that_is_cut_keeps_its_definitions() -> None:
    qwen = MODERN["qwen-3"]
    turns = [{"role": role, "content": "Bread? " * 20} for role in ("user", "assistant")] * 5
    talk = [*turns, {"role": "user", "content": "And salt?"}]
    whole = trained(qwen, talk, tools=(WEATHER,))
    assert whole is not None
    room = whole.length - 400
    cut = trained(qwen, talk, tools=(WEATHER,), max_length=room)
    assert cut is not None
    assert cut.truncated
    assert cut.length <= room
    assert "The weather of a place" in qwen.tokenizer.decode(cut.prompt)


def test_engine_refuses_to_call_tools() -> None:
    for choice in ({}, {"tool_choice": "auto"}):
        with pytest.raises(ValidationError, match="calls no tools"):
            ChatRequest.model_validate(
                {"model": "m", "messages": PLAIN, "tools": [WEATHER], **choice}
            )


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("tools", "fault"),
    [
        ({}, "must be a list"),
        ("weather", "must be a list"),
        ([WEATHER] * 65, "at most 64"),
        (["weather"], "number 1 must be"),
        ([{"type": "function", "function": {"name": ""}}], "number 1 must be"),
        ([WEATHER, {**HOURS, "more": 1}], "number 2 must be"),
        ([WEATHER, WEATHER], "two tools have the same name"),
        ([{"type": "function", "function": {"name": "a", "description": "x" * 200_000}}], "long"),
        ([{"type": "function", "function": {"name": "a", "parameters": nested(100_000)}}], "deep"),
    ],
)
def test_definitions_that_are_refused(tools: object, fault: str) -> None:
    found = tools_fault(tools)
    assert found is not None
    assert fault in found


def test_definitions_of_examples_and_prompts_are_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    write_examples(path, [example(1, tools=(WEATHER,)), example(2)])
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first["tools"] == [WEATHER]
    assert "tools" not in second
    assert [found.tools for found in read_examples(path)] == [(WEATHER,), ()]
    path.write_text(json.dumps({**first, "tools": [WEATHER, WEATHER]}) + "\n")
    with pytest.raises(Refused, match=r"examples.jsonl line 1: tools: two tools"):
        read_examples(path)

    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"id": "1", "messages": PLAIN, "tools": [WEATHER]}) + "\n")
    assert read_prompts(prompts)[0].tools == (WEATHER,)
    prompts.write_text(json.dumps({"id": "1", "messages": PLAIN, "tools": {}}) + "\n")
    with pytest.raises(Refused, match=r"prompts.jsonl line 1: tools must be a list"):
        read_prompts(prompts)


# -- variables


@pytest.mark.parametrize(
    "value",
    [
        [],
        "text",
        {1: 2},
        {"messages": []},
        {"add_generation_prompt": False},
        {"_x": 1},
        {"not a name": 1},
        {f"a{n}": 1 for n in range(MOST_KWARGS + 1)},
        {"long": "x" * KWARGS_CHARACTERS},
    ],
)
def test_variables_that_cannot_be_set_are_refused(value: object) -> None:
    assert template_kwargs_fault(value)


def test_variables_that_can_be_set() -> None:
    assert template_kwargs_fault({}) is None
    assert template_kwargs_fault({"enable_thinking": False, "builtin_tools": ["x"]}) is None
    assert "tokenize" in RESERVED


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_engine_refuses_content_that_is_no_text_with_a_sentence(kind: str) -> None:
    part = {"type": kind, kind: {"url": "https://example.com/a.png"}}
    body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    with pytest.raises(ValueError, match=f"{kind} is not supported: the model reads text only"):
        ChatRequest.model_validate(body)


def test_engine_takes_calls_without_content_and_nothing_else_without() -> None:
    body = {"model": "m", "messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, RESULT]}
    assert [m.content for m in ChatRequest.model_validate(body).messages] == [
        "And Oslo?",
        "",
        "Rain",
    ]
    for message in ({"role": "user"}, {"role": "user", "content": "x", "tool_calls": [CALL]}):
        with pytest.raises(ValueError, match=r"content|tool_calls"):
            ChatRequest.model_validate({"model": "m", "messages": [message]})
