"""What is measured of each single answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainer.evaluation.embeddings import States, pooled_states
from trainer.evaluation.generate import Answer
from trainer.evaluation.measures.language import language
from trainer.evaluation.measures.refusal import is_refusal
from trainer.evaluation.measures.relevance import relevance
from trainer.evaluation.text_metrics import repeats, words
from trainer.models.loading import LoadedBase

OnStep = Callable[[], None]


@dataclass(frozen=True)
class MeasuredAnswer:
    """One answer as the report has it. `tokens` and `words` are counts; `relevance` is that of
    relevance.py; `language` is an ISO 639-1 code or ""; `up` is the predicted probability of an up
    vote, None without a model of the votes. All are those of the answer alone; `reasoning` is the
    text before it."""

    text: str
    finish_reason: Literal["stop", "length"]
    tokens: int
    words: int
    repeats: bool
    relevance: float
    refusal: bool
    language: str
    up: float | None = None
    reasoning: str = ""


@dataclass(frozen=True)
class PromptStates:
    """The states of an evaluation's prompts: `states` (m, hidden) holds each different prompt
    once, `places` the row of each prompt."""

    states: States
    places: tuple[int, ...]

    @classmethod
    def of(
        cls, base: LoadedBase, prompts: Sequence[tuple[int, ...]], *, on_step: OnStep
    ) -> "PromptStates":
        """Read the prompts (token ids) with the bare base model. `on_step` is called before every
        forward pass; what it raises ends the work."""
        known = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        states = pooled_states(base, [(prompt, ()) for prompt in known], on_step=on_step).prompt
        return cls(states, tuple(known[prompt] for prompt in prompts))


def measured_answers(
    base: LoadedBase,
    answers: Sequence[Sequence[Answer]],
    prompts: PromptStates,
    ups: Sequence[float] | None,
    *,
    on_step: OnStep,
) -> list[list[MeasuredAnswer]]:
    """Return the measures of a version's answers, a list per prompt. `base` must be bare: all
    versions' answers are read by the same model. `ups`: the predicted probability of an up of each
    answer, prompt after prompt. `on_step` is called before every forward pass; what it raises ends
    the work."""
    flat = [answer for group in answers for answer in group]
    own = [place for place, group in zip(prompts.places, answers, strict=True) for _ in group]
    rows = [(answer.prompt_ids, answer.token_ids) for answer in flat]
    states = pooled_states(base, rows, on_step=on_step)
    relevances = relevance(
        prompts.states.astype(np.float64), states.completion.astype(np.float64), own
    )
    likely = [None] * len(flat) if ups is None else ups
    measured = map(_measured, flat, relevances, likely)
    return [[next(measured) for _ in group] for group in answers]


def _measured(answer: Answer, relevant: float, up: float | None) -> MeasuredAnswer:
    text = answer.text
    return MeasuredAnswer(
        text=text,
        finish_reason=answer.finish_reason,
        tokens=len(answer.token_ids),
        words=len(words(text)),
        repeats=repeats(text),
        relevance=relevant if text.strip() else 0.0,  # nothing is about nothing
        refusal=is_refusal(text),
        language=language(text),
        up=up,
        reasoning=answer.reasoning,
    )
