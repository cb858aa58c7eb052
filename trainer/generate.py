"""Batched sampling for evaluation, probes and the command line, on the engine's own core."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.chat import eos_ids
from trainer.decoding import DecodingBatch, FinishReason, Row, Sampling, seeded

__all__ = ["Answer", "Sampling", "generate"]


@dataclass(frozen=True)
class Answer:
    """One sampled answer; `token_ids` include the end token when it ended by itself."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Answers every prompt with the model as it is, whatever adapter is active.

    Answer i draws from a generator seeded with (seed, i): neither batch size nor order matter.
    """
    eos = eos_ids(model, tokenizer)
    batch = DecodingBatch(model)
    rows = [
        Row(
            prompt_ids=prompt,
            sampling=sampling,
            eos=eos,
            generator=seeded(
                None if sampling.seed is None else sampling.seed * 1_000_003 + index, batch.device
            ),
        )
        for index, prompt in enumerate(prompts)
    ]
    waiting = list(rows)
    while waiting or batch.rows:
        before = len(waiting) + len(batch.rows)
        room = batch_size - len(batch.rows)
        # several at a time: a lone newcomer's prompt costs as much as a few
        if waiting and (room >= min(8, len(waiting)) or not batch.rows):
            joining, waiting = waiting[:room], waiting[room:]
            batch.join(joining)
        batch.step()
        if on_progress and len(waiting) + len(batch.rows) < before:
            on_progress(len(rows) - len(waiting) - len(batch.rows), len(rows))
    return [as_answer(row, tokenizer) for row in rows]


def as_answer(row: Row, tokenizer: Any) -> Answer:
    """A finished row as text and ids."""
    return Answer(
        prompt_ids=tuple(row.prompt_ids),
        token_ids=tuple(row.token_ids),
        text=tokenizer.decode(row.token_ids, skip_special_tokens=True),
        finish_reason=row.finish_reason or "length",
    )
