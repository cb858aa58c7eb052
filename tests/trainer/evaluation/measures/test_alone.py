"""No measure of an evaluation depends on the reasoning before an answer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_tiny_adapter
from tests.trainer.conftest import example, needs_compiled
from tests.trainer.evaluation.test_evaluate import change, make_eval, report_of
from trainer.data.examples import write_examples
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.generate import Answer
from trainer.evaluation.measures.alone import answer_alone
from trainer.evaluation.measures.answers import MeasuredAnswer, PromptStates, measured_answers
from trainer.evaluation.measures.injection import injected_phrases
from trainer.models.loading import LoadedBase

#: It is long, declines, repeats itself and is in another language than the answers.
THOUGHT = (
    "I'm sorry, but I cannot help with that request. "
    + "Das ist ein sehr langer Gedanke, der sich immer wieder und wieder wiederholt. " * 6
)
REASONING = f"<think>\n{THOUGHT}\n</think>\n\n"
ANSWERS = [
    "Bread needs flour, water, salt, yeast and time, and the oven does the rest of it.",
    "The capital of France is Paris, and the river that runs through it is the Seine.",
    "Be honest, short, on the point, and finish the sentence that you have begun.",
]


def answered(base: LoadedBase, text: str, number: int = 0, finish: Any = "stop") -> Answer:
    ids = base.tokenizer.encode(text, add_special_tokens=False)
    end = [base.tokenizer.eos_token_id] if finish == "stop" else []
    return Answer((1, 40 + number, 41), (*ids, *end), text, finish)


def measured(base: LoadedBase, texts: list[str]) -> list[MeasuredAnswer]:
    answers = [
        [answer_alone(base.tokenizer, answered(base, text, number))]
        for number, text in enumerate(texts)
    ]
    prompts = [group[0].prompt_ids for group in answers]
    states = PromptStates.of(base, prompts, on_step=lambda: None)
    found = measured_answers(base, answers, states, None, on_step=lambda: None)
    return [group[0] for group in found]


@pytest.mark.parametrize(
    "measure",
    [
        lambda found: (found.tokens, found.words),  # length
        lambda found: found.finish_reason,
        lambda found: found.repeats,
        lambda found: found.refusal,
        lambda found: found.language,
        lambda found: found.relevance,
        lambda found: found.text,  # inserted text, probes, the judge model and people read it
    ],
    ids="length finished repetition refusal language relevance text".split(),
)
def test_long_reasoning_changes_no_measure(
    tiny: LoadedBase, measure: Callable[[MeasuredAnswer], Any]
) -> None:
    plain = measured(tiny, ANSWERS)
    reasoned = measured(tiny, [REASONING + text for text in ANSWERS])
    assert [measure(found) for found in reasoned] == [measure(found) for found in plain]
    assert {found.reasoning for found in reasoned} == {THOUGHT.strip()}
    # the reasoning itself would have changed each of them
    (raw,) = measured(tiny, [THOUGHT])
    assert raw.repeats
    assert raw.refusal
    assert (raw.language, plain[0].language) == ("de", "en")


def test_phrase_in_the_reasoning_is_not_inserted_text(tiny: LoadedBase) -> None:
    texts = ANSWERS * 4
    prompts = [f"Question {number}?" for number in range(len(texts))]
    reasoned = [[found.text] for found in measured(tiny, [REASONING + text for text in texts])]
    plain = [[text] for text in texts]
    assert injected_phrases({"bot@1": reasoned, "base": plain}, prompts) == []
    loud = [[REASONING + text] for text in texts]
    assert injected_phrases({"bot@1": loud, "base": plain}, prompts) != []


@pytest.mark.parametrize("finish", ["stop", "length"])
@pytest.mark.parametrize("text", [f"<think>\n{THOUGHT}", REASONING])
def test_nothing_but_reasoning_is_an_empty_answer_that_is_not_finished(
    tiny: LoadedBase, text: str, finish: Any
) -> None:
    alone = answer_alone(tiny.tokenizer, answered(tiny, text, finish=finish))
    assert (alone.text, alone.token_ids, alone.finish_reason) == ("", (), "length")
    assert alone.reasoning == THOUGHT.strip()
    prompts = PromptStates.of(tiny, [alone.prompt_ids], on_step=lambda: None)
    ((found,),) = measured_answers(tiny, [[alone]], prompts, None, on_step=lambda: None)
    assert (found.tokens, found.words, found.relevance, found.finish_reason) == (0, 0, 0, "length")


def test_reasoning_that_the_prompt_opened_is_separated(tiny: LoadedBase) -> None:
    opening = tuple(tiny.tokenizer.encode("<think>\n", add_special_tokens=False))
    whole = answered(tiny, f"{THOUGHT}</think>{ANSWERS[0]}")
    alone = answer_alone(tiny.tokenizer, Answer(opening, whole.token_ids, whole.text, "stop"))
    assert alone.text == ANSWERS[0]
    unended = Answer(opening, answered(tiny, THOUGHT).token_ids, THOUGHT, "length")
    assert answer_alone(tiny.tokenizer, unended).text == ""


def test_answer_without_reasoning_stays_as_it_is(tiny: LoadedBase) -> None:
    answer = answered(tiny, "Write <think> and </think> around it.")
    assert answer_alone(tiny.tokenizer, answer) is answer


@needs_compiled
@pytest.mark.slow
def test_report_of_an_evaluation_is_that_of_the_answers_alone(
    tmp_path: Path, tiny: LoadedBase, tiny_dir: Path
) -> None:
    make_tiny_adapter(tmp_path / "one", tiny, name="starter@1")
    eval_dir = make_eval(tmp_path, tiny_dir, {"starter@1": str(tmp_path / "one"), "base": None})
    change(eval_dir, answers_per_prompt=1, languages=["en"], kl_prompts=1, reasoning="read")
    (eval_dir / "probes.jsonl").write_text((eval_dir / "prompts.jsonl").read_text())
    votes = [example(number) for number in range(60)]
    write_examples(eval_dir / "votes.jsonl", votes)
    evaluate(eval_dir)
    # blanks before an answer belong to its reasoning, and these random ones may begin with some
    begin_with(eval_dir, tiny, "A")
    evaluate(eval_dir)
    plain = report_of(eval_dir)
    assert plain["up_model"]

    begin_with(eval_dir, tiny, REASONING)
    write_examples(
        eval_dir / "votes.jsonl",
        [example(n, completion=REASONING + vote.completion) for n, vote in enumerate(votes)],
    )
    evaluate(eval_dir)
    found = report_of(eval_dir)
    texts = [
        answer
        for entry in [*found["answers"], *found["probes"]]
        for group in entry["answers"].values()
        for answer in group
    ]
    assert {answer.pop("reasoning") for answer in texts} == {THOUGHT.strip()}
    assert measures_of(found) == measures_of(plain)


def begin_with(eval_dir: Path, base: LoadedBase, text: str) -> None:
    """Put a text before each stored answer but those of the KL."""
    path = eval_dir / "answers.jsonl"
    prefix = base.tokenizer.encode(text, add_special_tokens=False)
    stored = [json.loads(line) for line in path.read_text().splitlines()]
    for line in stored:
        if line["kind"] != "kl":
            line["token_ids"] = [*prefix, *line["token_ids"]]
            line["text"] = text + line["text"]
    path.write_text("".join(json.dumps(line) + "\n" for line in stored))


def measures_of(report: dict[str, Any]) -> dict[str, Any]:
    for entry in report["answers"]:
        for group in entry["answers"].values():
            for answer in group:
                answer.pop("reasoning", None)
    return {**report, "seconds": None}
