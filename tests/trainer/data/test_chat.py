"""The context in training equals that in serving, for the formats of well-known model families.

An example is trained on the tokens that the engine would read for the same conversation,
followed by the answer as the model would generate it and the token that ends a turn.
"""

from itertools import pairwise
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from tests.trainer.conftest import example
from tests.trainer.data.chat_families import FAMILIES, Family
from trainer.data.chat import answer_end, eos_ids, prompt_ids
from trainer.data.messages import Message
from trainer.data.tokenise import Tokenised, tokenise, tokenise_all
from trainer.engine.http.protocol import ChatRequest
from trainer.errors import Refused

ANSWER = "The capital of France is Paris."
SYSTEM = ("system", "Be short.")
ONE_TURN = (SYSTEM, ("user", "Hi?"))
TWO_TURNS = (SYSTEM, ("user", "Hi?"), ("assistant", "Hello."), ("user", "Bye?"))
NO_SYSTEM = TWO_TURNS[1:]
LONG = (
    SYSTEM,
    *(("user", "first " * 9), ("assistant", "one " * 9)),
    *(("user", "second " * 9), ("assistant", "two " * 9)),
    ("user", "third?"),
)

# The tokens that each family's model reads for TWO_TURNS, written by hand.
READ = {
    "llama-2": "<s>[INST] <<SYS>>\nBe short.\n<</SYS>>\n\nHi? [/INST] Hello. </s>"
    "<s>[INST] Bye? [/INST]",
    "llama-3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe short.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nBye?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral-0.2": "<s>[INST] Be short.\n\nHi? [/INST]Hello.</s>[INST] Bye? [/INST]",
    "mistral-0.3": "<s>[INST] Hi?[/INST] Hello.</s>[INST] Be short.\n\nBye?[/INST]",
    "gemma-2": "<bos><start_of_turn>user\nBe short.\n\nHi?<end_of_turn>\n"
    "<start_of_turn>model\nHello.<end_of_turn>\n"
    "<start_of_turn>user\nBye?<end_of_turn>\n<start_of_turn>model\n",
    "phi-3": "<|system|>\nBe short.<|end|>\n<|user|>\nHi?<|end|>\n<|assistant|>\nHello.<|end|>\n"
    "<|user|>\nBye?<|end|>\n<|assistant|>\n",
    "phi-3-first": "<s><|user|>\nBe short.\n\nHi?<|end|>\n<|assistant|>\nHello.<|end|>\n"
    "<|user|>\nBye?<|end|>\n<|assistant|>\n",
    "glm-4": "[gMASK]<sop><|system|>\nBe short.<|user|>\nHi?<|assistant|>\nHello.<|user|>\nBye?"
    "<|assistant|>\n",
    # ChatML families: qwen-2, qwen-3 (reasoning of earlier turns is removed) and smollm2
    "chatml": "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi?<|im_end|>\n"
    "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye?<|im_end|>\n"
    "<|im_start|>assistant\n",
}
READ["gemma-1"] = READ["gemma-2"]
ENDS = {
    "llama-2": "</s>",
    "llama-3": "<|eot_id|>",
    "mistral-0.2": "</s>",
    "mistral-0.3": "</s>",
    "qwen-2": "<|im_end|>",
    "qwen-3": "<|im_end|>",
    "gemma-1": "<end_of_turn>",
    "gemma-2": "<end_of_turn>",
    "phi-3": "<|end|>",
    "phi-3-first": "<|end|>",
    "smollm2": "<|im_end|>",
    "glm-4": "<|user|>",
}

each = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())


def served(family: Family, turns: tuple[tuple[str, str], ...]) -> tuple[int, ...]:
    """Return the ids that the engine computes on for a request with these messages."""
    body = {"model": "m", "messages": [{"role": role, "content": text} for role, text in turns]}
    messages = [message.model_dump() for message in ChatRequest.model_validate(body).messages]
    return tuple(prompt_ids(family.tokenizer, messages))


def trained(
    family: Family, turns: tuple[tuple[str, str], ...], *, max_length: int = 4096, **changes: Any
) -> Tokenised | None:
    given = {"completion": ANSWER, **changes}
    asked = example(1, prompt=tuple(Message(role, text) for role, text in turns), **given)
    end = answer_end(family.model, family.tokenizer)
    return tokenise(asked, family.tokenizer, eos=end, max_length=max_length)


def words(family: Family, text: str) -> tuple[int, ...]:
    return tuple(family.tokenizer.encode(text, add_special_tokens=False))


@each
@pytest.mark.parametrize("turns", [ONE_TURN, TWO_TURNS, NO_SYSTEM], ids=["one", "two", "bare"])
def test_training_and_serving_read_the_same_tokens(
    family: Family, turns: tuple[tuple[str, str], ...]
) -> None:
    found = trained(family, turns)
    assert found is not None
    end = family.tokenizer.convert_tokens_to_ids(ENDS[family.name])
    assert found.prompt == served(family, turns)
    assert found.completion == (*words(family, ANSWER), end)


@each
def test_model_reads_the_format_of_its_family(family: Family) -> None:
    expected = READ.get(family.name, READ["chatml"])
    assert served(family, TWO_TURNS) == words(family, expected)


@each
def test_answer_ends_with_the_end_of_turn_token_and_the_engine_stops_at_it(family: Family) -> None:
    tokenizer = family.tokenizer
    assert tokenizer.convert_ids_to_tokens(answer_end(family.model, tokenizer)) == ENDS[family.name]
    ends = set(tokenizer.convert_ids_to_tokens(list(eos_ids(family.model, tokenizer))))
    assert ends == {family.eos, *family.named, ENDS[family.name]}


@each
def test_begin_of_text_is_never_duplicated(family: Family) -> None:
    bos = family.tokenizer.bos_token_id
    for turns in (ONE_TURN, TWO_TURNS, NO_SYSTEM):
        ids = served(family, turns)
        if family.name not in ("phi-3", "smollm2") and bos is not None:
            assert ids[0] == bos
        assert all(pair != (bos, bos) for pair in pairwise(ids))
        found = trained(family, turns)
        assert found is not None
        assert bos not in found.completion


# Templates that render earlier answers differently from what a model generates: with a blank
# before EOS (Llama 2), or with one blank more or less before the answer (Mistral). Training uses
# what the model generates.
OWN_WAYS = ("llama-2", "mistral-0.2", "mistral-0.3")


@each
def test_trained_ids_equal_those_of_the_whole_conversation(family: Family) -> None:
    # cross-check: the template renders the answer as a turn of the conversation
    turns = [("user", "Hi?"), ("assistant", ANSWER), ("user", "More?")]
    whole = family.tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in turns],
        tokenize=True,
        return_dict=False,
    )
    found = trained(family, (("user", "Hi?"),))
    assert found is not None
    begun = whole[: found.length] == [*found.prompt, *found.completion]
    assert begun == (family.name not in OWN_WAYS)


@each
def test_truncated_answer_gets_no_end_token(family: Family) -> None:
    found = trained(family, ONE_TURN, finish_reason="length")
    assert found is not None
    assert found.completion == words(family, ANSWER)


@each
def test_answer_with_an_end_token_gets_no_second_one(family: Family) -> None:
    found = trained(family, ONE_TURN, completion=ANSWER + ENDS[family.name])
    assert found is not None
    assert found.completion == (*words(family, ANSWER), answer_end(family.model, family.tokenizer))


@each
def test_served_ids_take_precedence(family: Family) -> None:
    found = trained(family, TWO_TURNS, prompt_token_ids=(5, 6, 7), completion_token_ids=(8, 9))
    assert found is not None
    assert (found.prompt, found.completion, found.cut) == ((5, 6, 7), (8, 9), 0)


@each
def test_long_conversation_loses_its_oldest_turns(family: Family) -> None:
    whole, middle, least = (served(family, (SYSTEM, *LONG[start:])) for start in (1, 3, 5))
    answer = len(words(family, ANSWER)) + 1
    for left in (whole, middle, least):
        found = trained(family, LONG, max_length=len(left) + answer)
        assert found is not None
        assert found.prompt == left
        assert found.cut == len(whole) - len(left)
        assert len(found.completion) == answer
        text = family.tokenizer.decode(found.prompt)
        assert "Be short." in text
        assert "third?" in text
    assert trained(family, LONG, max_length=len(least) + answer - 1) is None


@each
def test_truncated_conversation_still_alternates(family: Family) -> None:
    turns = (*LONG[:-1], ("user", "third?"), ("assistant", "let me see"), ("user", "well?"))
    whole = served(family, turns)
    for max_length in range(30, len(whole) + 40, 7):
        found = trained(family, turns, max_length=max_length)
        if found is not None:
            assert found.length <= max_length
            assert found.prompt in {
                served(family, (SYSTEM, *turns[start:])) for start in (1, 3, 5, 7)
            }


def test_tool_result_stays_with_its_call() -> None:
    # Qwen reads tool messages; without the call before it a tool's result has no context
    family = FAMILIES["qwen-2"]
    turns = (
        ("user", "old " * 30),
        ("assistant", "reply"),
        ("user", "What time?"),
        ("assistant", "calling the clock"),
        ("tool", "12:00"),
    )
    last = [{"role": role, "content": text} for role, text in turns[2:]]
    least = tuple(prompt_ids(family.tokenizer, last))
    answer = len(words(family, ANSWER)) + 1
    found = trained(family, turns, max_length=len(least) + answer)
    assert found is not None
    assert found.prompt == least
    assert trained(family, turns, max_length=len(least) + answer - 1) is None


@pytest.mark.parametrize("name", ["mistral-0.2", "gemma-2", "phi-3-first"])
def test_unsupported_system_prompt_is_prepended_to_the_user_turn(name: str) -> None:
    family = FAMILIES[name]
    folded = (("user", "Be short.\n\nHi?"), *TWO_TURNS[2:])
    assert served(family, TWO_TURNS) == served(family, folded)
    # an empty system prompt adds no blank lines
    assert served(family, (("system", " "), *NO_SYSTEM)) == served(family, NO_SYSTEM)


def test_supported_system_prompt_is_a_message_of_its_own() -> None:
    assert served(FAMILIES["llama-3"], ONE_TURN) != served(
        FAMILIES["llama-3"], (("user", "Be short.\n\nHi?"),)
    )


def test_error_of_a_template_is_reported() -> None:
    gemma = FAMILIES["gemma-2"]
    with pytest.raises(Refused, match="chat template refused the messages: roles must alternate"):
        served(gemma, (("user", "a"), ("user", "b")))
    # a system message without a following user turn cannot be folded into one
    with pytest.raises(Refused, match="System role not supported"):
        served(gemma, (("system", "a"), ("assistant", "b")))


def test_prompts_that_a_template_refuses_are_refused_together() -> None:
    gemma = FAMILIES["gemma-2"]
    twice = (Message("user", "a"), Message("user", "b"))
    examples = [example(1, prompt=twice), example(2), example(3, prompt=twice)]
    with pytest.raises(Refused) as caught:
        tokenise_all(examples, gemma.tokenizer, eos=1, vocabulary=10_000, max_length=400)
    (fault,) = caught.value.faults
    assert fault.startswith("2 example(s) have no prompt in this model's words (first: e1)")
    assert "roles must alternate" in fault


def copy_with(family: Family, template: str | None, *, eos: str | None) -> Any:
    """Return the family's tokenizer with another template."""
    original = family.tokenizer
    tokenizer = type(original)(
        tokenizer_object=Tokenizer.from_str(original.backend_tokenizer.to_str()), eos_token=eos
    )
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "has no chat template"),
        ("{{ broken", "chat template refused the messages"),
        ("{{ messages[7].content }}", "chat template refused the messages"),
        ("{# nothing #}", "writes nothing for these messages"),
    ],
)
def test_template_that_is_missing_or_broken_is_refused(template: str | None, reason: str) -> None:
    qwen = FAMILIES["qwen-2"]
    tokenizer = copy_with(qwen, template, eos=qwen.eos)
    with pytest.raises(Refused, match=reason):
        prompt_ids(tokenizer, [{"role": "user", "content": "Hi?"}])
    # the end of an answer is then taken from the configs
    assert answer_end(qwen.model, tokenizer) == tokenizer.eos_token_id
    assert len(eos_ids(qwen.model, tokenizer)) == 2


def test_model_without_an_end_token_is_refused() -> None:
    phi = FAMILIES["phi-3"]
    tokenizer = copy_with(phi, "{{ messages[0].content }}", eos=None)
    with pytest.raises(Refused, match="names no end-of-sequence token"):
        answer_end(None, tokenizer)
    assert answer_end(phi.model, tokenizer) == min(tokenizer.convert_tokens_to_ids(list(phi.named)))


@pytest.mark.parametrize("blank", ["  ", "▁▁"])
def test_added_blanks_are_not_taken_as_an_end_of_turn(blank: str) -> None:
    # some vocabularies contain runs of blanks as added tokens
    llama = FAMILIES["llama-3"]
    template = "{% for m in messages %}{{ m.content + '" + blank + "<|eot_id|>' }}{% endfor %}"
    tokenizer = copy_with(llama, template, eos=llama.eos)
    tokenizer.add_tokens([AddedToken(blank, normalized=False)])
    assert tokenizer.convert_ids_to_tokens(answer_end(llama.model, tokenizer)) == "<|eot_id|>"


def test_reasoning_is_kept_in_the_answer_and_removed_from_earlier_turns() -> None:
    qwen = FAMILIES["qwen-3"]
    thought = "<think>\nhmm\n</think>\n\nHello."
    found = trained(qwen, ONE_TURN, completion=thought)
    assert found is not None
    assert qwen.tokenizer.decode(found.completion) == thought + "<|im_end|>"
    earlier = (SYSTEM, ("user", "Hi?"), ("assistant", thought), ("user", "Bye?"))
    assert served(qwen, earlier) == served(qwen, TWO_TURNS)
