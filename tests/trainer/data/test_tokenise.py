"""The boundary between prompt and completion, EOS, and prompts that are too long."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import example
from trainer.data.chat import prompt_ids
from trainer.data.examples import Example
from trainer.data.messages import Message
from trainer.data.tokenise import tokenise, tokenise_all
from trainer.errors import Refused
from trainer.models.loading import LoadedBase

pytestmark = pytest.mark.slow


@pytest.fixture
def tokenizer(tiny: LoadedBase) -> Any:
    return tiny.tokenizer


def template(tokenizer: Any, *messages: tuple[str, str]) -> tuple[int, ...]:
    return tuple(prompt_ids(tokenizer, [{"role": r, "content": c} for r, c in messages]))


def test_training_context_equals_the_serving_context(tokenizer: Any) -> None:
    found = tokenise(example(1), tokenizer, eos=2, max_length=512)
    assert found is not None
    assert found.prompt == template(tokenizer, ("system", "Be short."), ("user", "Question 0?"))
    text = tokenizer.decode(found.prompt + found.completion)
    assert text.endswith("<|im_start|>assistant\nAnswer 1, and on.<|im_end|>")


def test_completed_answer_ends_with_eos_and_a_truncated_one_does_not(tokenizer: Any) -> None:
    eos = tokenizer.eos_token_id
    stopped = tokenise(example(1), tokenizer, eos=eos, max_length=512)
    unknown = tokenise(example(1, finish_reason=None), tokenizer, eos=eos, max_length=512)
    cut = tokenise(example(1, finish_reason="length"), tokenizer, eos=eos, max_length=512)
    assert stopped is not None
    assert unknown is not None
    assert cut is not None
    assert stopped.completion[-1] == eos
    assert unknown.completion == stopped.completion
    assert cut.completion == stopped.completion[:-1]


def test_served_token_ids_take_precedence_over_the_text(tokenizer: Any) -> None:
    served = example(1, prompt_token_ids=(5, 6, 7), completion_token_ids=(8, 9))
    found = tokenise(served, tokenizer, eos=2, max_length=512)
    assert found is not None
    assert (found.prompt, found.completion) == ((5, 6, 7), (8, 9))


def conversation(*turns: str) -> Example:
    roles = ["user", "assistant"] * len(turns)
    messages = [Message(role, turn) for role, turn in zip(roles, turns, strict=False)]
    return example(1, prompt=(Message("system", "Be short."), *messages), completion="Yes.")


def test_long_prompt_loses_its_oldest_turns_only(tokenizer: Any) -> None:
    whole = conversation("first " * 20, "reply " * 20, "second " * 20, "reply", "last one?")
    least = template(tokenizer, ("system", "Be short."), ("user", "last one?"))
    middle = template(
        tokenizer,
        ("system", "Be short."),
        ("user", "second " * 20),
        ("assistant", "reply"),
        ("user", "last one?"),
    )
    answer = len(tokenizer.encode("Yes.", add_special_tokens=False)) + 1

    roomy = tokenise(whole, tokenizer, eos=2, max_length=512)
    assert roomy is not None
    assert not roomy.truncated

    found = tokenise(whole, tokenizer, eos=2, max_length=len(middle) + answer)
    assert found is not None
    assert (found.prompt, found.truncated) == (middle, True)
    assert len(found.completion) == answer

    found = tokenise(whole, tokenizer, eos=2, max_length=len(middle) + answer - 1)
    assert found is not None
    assert found.prompt == least

    assert tokenise(whole, tokenizer, eos=2, max_length=len(least) + answer - 1) is None


def test_long_served_prompt_is_rendered_again_without_old_turns(tokenizer: Any) -> None:
    long = Example(
        id="x",
        prompt=(Message("user", "a"), Message("assistant", "b"), Message("user", "c?")),
        completion="Yes.",
        label=True,
        prompt_token_ids=(7,) * 400,
        completion_token_ids=(8, 9),
    )
    found = tokenise(long, tokenizer, eos=2, max_length=100)
    assert found is not None
    assert found.truncated
    assert found.prompt == template(tokenizer, ("user", "a"), ("assistant", "b"), ("user", "c?"))
    assert found.cut == 400 - len(found.prompt)


def test_set_counts_truncated_prompts_and_names_examples_that_do_not_fit(tokenizer: Any) -> None:
    hopeless = example(7, completion="word " * 300)
    # A prompt of 10,000 turns must not need 10,000 renderings.
    endless = conversation(*(["tell me", "more"] * 5000), "last?")
    found = tokenise_all(
        [example(1), hopeless, endless], tokenizer, eos=2, vocabulary=384, max_length=200
    )
    assert found.left_out == ("e7",)
    assert found.truncated == 1
    whole = len(prompt_ids(tokenizer, [asdict(message) for message in endless.prompt]))
    assert found.tokens_cut == whole - len(found.examples[1].prompt) > 100_000
    assert [item.cut for item in found.examples] == [0, found.tokens_cut]
    assert [item.truncated for item in found.examples] == [False, True]
    assert all(item.length <= 200 for item in found.examples)


def test_token_ids_of_another_model_are_refused(tokenizer: Any) -> None:
    foreign = example(1, prompt_token_ids=(5,), completion_token_ids=(49_000,))
    with pytest.raises(Refused, match="outside the model's vocabulary of 384"):
        tokenise_all([foreign], tokenizer, eos=2, vocabulary=384, max_length=200)


def test_examples_of_one_prompt_share_a_key(tokenizer: Any, tmp_path: Path) -> None:
    keys = [
        found.prompt_key
        for found in (
            tokenise(example(number), tokenizer, eos=2, max_length=512) for number in (0, 1, 3)
        )
        if found is not None
    ]
    assert keys[0] == keys[1] != keys[2]
