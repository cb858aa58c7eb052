"""From an example to the token ids that are trained on: the context of training is the context of
serving."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainer.chat import prompt_ids
from trainer.errors import Refused
from trainer.examples import Example, Message


@dataclass(frozen=True)
class Tokenised:
    """One example as token ids. `prompt_key` is equal for examples of one prompt."""

    id: str
    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    label: bool
    weight: float
    prompt_key: str
    truncated: bool = False

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class TokenisedSet:
    """All examples that fit, how many prompts lost turns, and the ids that do not fit at all."""

    examples: tuple[Tokenised, ...]
    truncated: int
    left_out: tuple[str, ...]


def tokenise_all(
    examples: Sequence[Example], tokenizer: Any, *, eos: int, vocabulary: int, max_length: int
) -> TokenisedSet:
    """Tokenise every example; one whose completion cannot fit is left out and named.

    Raises Refused when token ids lie outside the vocabulary: they were served by another model.
    """
    done, left_out, foreign = [], [], []
    for example in examples:
        tokenised = tokenise(example, tokenizer, eos=eos, max_length=max_length)
        if tokenised is None:
            left_out.append(example.id)
        elif max(*tokenised.prompt, *tokenised.completion) >= vocabulary:
            foreign.append(example.id)
        else:
            done.append(tokenised)
    if foreign:
        raise Refused(
            f"the token ids of {len(foreign)} example(s) lie outside the model's vocabulary of "
            f"{vocabulary:,} (first: {foreign[0]}): they were served by another base model"
        )
    return TokenisedSet(tuple(done), sum(item.truncated for item in done), tuple(left_out))


def tokenise(example: Example, tokenizer: Any, *, eos: int, max_length: int) -> Tokenised | None:
    """Token ids of one example, or None when not even its last turn fits.

    Served ids are used where they are known: they are what the model saw and said, while text that
    is tokenised again may split differently. A completion that was cut off by the length limit
    gets no EOS, or the model would learn to stop there. A prompt that is too long loses its oldest
    turns, never the system message, the last turn or the completion.
    """
    completion = example.completion_token_ids
    if completion is None:
        text = tokenizer.encode(example.completion, add_special_tokens=False)
        completion = (*text, *(() if example.finish_reason == "length" else (eos,)))
    room = max_length - len(completion)
    whole = example.prompt_token_ids or tuple(prompt_ids(tokenizer, _plain(example.prompt)))
    tokenised = Tokenised(
        id=example.id,
        prompt=whole,
        completion=tuple(completion),
        label=example.label,
        weight=example.weight,
        prompt_key=repr([(message.role, message.content) for message in example.prompt]),
    )
    if len(whole) <= room:
        return tokenised
    shorter = fit_prompt(example.prompt, tokenizer, room=room)
    return None if shorter is None else replace(tokenised, prompt=shorter, truncated=True)


def fit_prompt(prompt: Sequence[Message], tokenizer: Any, *, room: int) -> tuple[int, ...] | None:
    """Token ids of the prompt without as many of its oldest turns as `room` tokens demand; None
    when system message and last turn alone are too long."""
    system = [message for message in prompt if message.role == "system"]
    turns = [message for message in prompt if message.role != "system"]
    starts = [
        index
        for index, message in enumerate(turns)
        # A conversation that starts with an answer confuses many chat templates.
        if message.role == "user" or index == len(turns) - 1
    ]
    low, high = 0, len(starts)
    found: tuple[int, ...] | None = None
    while low < high:  # the fewest turns dropped, by bisection: 10,000 turns take 14 renderings
        middle = (low + high) // 2
        ids = tuple(prompt_ids(tokenizer, _plain([*system, *turns[starts[middle] :]])))
        if len(ids) <= room:
            found, high = ids, middle
        else:
            low = middle + 1
    return found


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
