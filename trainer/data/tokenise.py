"""From an example to the token ids that are trained on: the context of training is the context of
serving."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainer.chats.settings import READ, ChatSettings
from trainer.data.chat import answer_end, prompt_ids
from trainer.data.examples import Example, refuse_if_faulty
from trainer.data.messages import Message, Tools
from trainer.data.reasoning import answer_index
from trainer.errors import Refused
from trainer.models.loading import LoadedBase


@dataclass(frozen=True)
class Tokenised:
    """One example as token ids. `prompt_key` is equal for examples of one prompt; `cut` is the
    number of tokens that the prompt lost because it was too long."""

    id: str
    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    label: bool
    weight: float
    prompt_key: str
    cut: int = 0

    @property
    def truncated(self) -> bool:
        return self.cut > 0

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class TokenisedSet:
    """All examples that fit, how many prompts lost turns and how many tokens these were, the ids
    that do not fit at all, and those whose answer has only reasoning, which is not trained on."""

    examples: tuple[Tokenised, ...]
    truncated: int
    tokens_cut: int
    left_out: tuple[str, ...]
    unanswered: tuple[str, ...] = ()


def tokenise_all(
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    eos: int,
    vocabulary: int,
    max_length: int,
    chat: ChatSettings | None = None,
) -> TokenisedSet:
    """Tokenise every example; one whose completion cannot fit is left out and named.

    Raises Refused when token ids lie outside the vocabulary (they were served by another model)
    and when the chat template cannot express a prompt, each reason once.
    """
    done, left_out, foreign, unanswered = [], [], [], []
    inexpressible: defaultdict[str, list[str]] = defaultdict(list)
    for example in examples:
        try:
            tokenised = tokenise(example, tokenizer, eos=eos, max_length=max_length, chat=chat)
        except Refused as error:
            inexpressible[str(error)].append(example.id)
            continue
        if tokenised is None:
            left_out.append(example.id)
        elif not tokenised.completion:
            unanswered.append(example.id)
        elif max(*tokenised.prompt, *tokenised.completion) >= vocabulary:
            foreign.append(example.id)
        else:
            done.append(tokenised)
    faults = [
        f"{len(ids)} example(s) have no prompt in this model's words (first: {ids[0]}): {reason}"
        for reason, ids in inexpressible.items()
    ]
    if foreign:
        faults.append(
            f"the token ids of {len(foreign)} example(s) lie outside the model's vocabulary of "
            f"{vocabulary:,} (first: {foreign[0]}): they were served by another base model"
        )
    refuse_if_faulty(faults)
    return TokenisedSet(
        examples=tuple(done),
        truncated=sum(item.truncated for item in done),
        tokens_cut=sum(item.cut for item in done),
        left_out=tuple(left_out),
        unanswered=tuple(unanswered),
    )


def tokenise(
    example: Example,
    tokenizer: Any,
    *,
    eos: int,
    max_length: int,
    chat: ChatSettings | None = None,
) -> Tokenised | None:
    """Return token ids of one example, or None when not even its last turn fits.

    Served ids are used where they are known: text that is tokenised again may be split differently.
    A completion is tokenised without the prompt, since a served answer begins with a new token.
    `eos` is chat.answer_end. A completion that was cut off by the length limit gets none, or the
    model would learn to stop there. A prompt that is too long loses its oldest turns, never the
    system message, the last turn or the completion.

    Reasoning that is only read follows the prompt, as it did when the answer was given; without an
    answer after it the completion is empty.
    """
    chat = chat or ChatSettings()
    completion = example.completion_token_ids
    if completion is None:
        completion = _ended(example, tokenizer, eos=eos)
    room = max_length - len(completion)
    whole = example.prompt_token_ids or tuple(
        prompt_ids(tokenizer, _plain(example.prompt), chat.template_kwargs, example.tools)
    )
    start: int | None = 0
    if chat.reasoning == READ:
        start = answer_index(tokenizer, whole, completion)
    read, said = (completion, ()) if start is None else (completion[:start], completion[start:])
    tokenised = Tokenised(
        id=example.id,
        prompt=(*whole, *read),
        completion=tuple(said),
        label=example.label,
        weight=example.weight,
        prompt_key=_prompt_key(example),
    )
    if len(whole) <= room:
        return tokenised
    shorter = fit_prompt(
        example.prompt,
        tokenizer,
        room=room,
        template_kwargs=chat.template_kwargs,
        tools=example.tools,
    )
    if shorter is None:
        return None
    return replace(tokenised, prompt=(*shorter, *read), cut=len(whole) - len(shorter))


def fit_prompt(
    prompt: Sequence[Message],
    tokenizer: Any,
    *,
    room: int,
    template_kwargs: Mapping[str, Any] | None = None,
    tools: Tools = (),
) -> tuple[int, ...] | None:
    """Return token ids of the prompt without as many of its oldest turns as `room` tokens demand;
    None when system message, tools and last turn alone are too long. A turn is a user's message and
    all that answers it, so what is left alternates as the whole did: many templates insist."""
    system = [message for message in prompt if message.role == "system"]
    turns = [message for message in prompt if message.role != "system"]
    starts = [index for index, message in enumerate(turns) if message.role == "user"]
    low, high = 0, len(starts)
    found: tuple[int, ...] | None = None
    while low < high:  # the fewest turns dropped, by bisection: 10,000 turns take 14 renderings
        middle = (low + high) // 2
        left = _plain([*system, *turns[starts[middle] :]])
        ids = tuple(prompt_ids(tokenizer, left, template_kwargs, tools))
        if len(ids) <= room:
            found, high = ids, middle
        else:
            low = middle + 1
    return found


def _ended(example: Example, tokenizer: Any, *, eos: int) -> tuple[int, ...]:
    """Return the completion's text as token ids, with one EOS unless the length limit cut it off;
    text from elsewhere may have brought its own."""
    ids = tuple(tokenizer.encode(example.completion, add_special_tokens=False))
    return ids if example.finish_reason == "length" or ids[-1:] == (eos,) else (*ids, eos)


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message.as_dict() for message in messages]


def _prompt_key(example: Example) -> str:
    """Return what two examples share exactly if their prompts are the same."""
    messages = [_key(message) for message in example.prompt]
    return repr((messages, list(example.tools)) if example.tools else messages)


def _key(message: Message) -> tuple[Any, ...]:
    """Return what two messages must share to be the same."""
    tools = (message.tool_calls, message.tool_call_id)
    return (message.role, message.content, *(tools if any(tools) else ()))


def tokenise_for(
    base: LoadedBase,
    examples: Sequence[Example],
    *,
    max_length: int,
    chat: ChatSettings | None = None,
) -> TokenisedSet:
    """Tokenise examples for a base model, its end-of-turn token included."""
    return tokenise_all(
        examples,
        base.tokenizer,
        eos=answer_end(base.model, base.tokenizer),
        vocabulary=base.model.get_input_embeddings().num_embeddings,
        max_length=max_length,
        chat=chat,
    )
