"""Answers to many prompts from a model as it is: whatever adapter is active speaks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from trainer.chat import eos_ids
from trainer.engine.batch import Batch, Row, context_length, prefill_group
from trainer.engine.sampling import Sampling, derived_seed
from trainer.errors import Refused, RunFailed

__all__ = ["Answer", "Sampling", "generate"]


@dataclass(frozen=True)
class Answer:
    """One answer; `token_ids` end with the EOS token when the model ended it itself."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    finish_reason: Literal["stop", "length"]


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """One answer for each prompt (token ids), in their order.

    Up to `batch_size` run at once, and the next prompt takes the place of an answer that is done.
    Answer i draws from a random stream seeded by (sampling.seed, i), so it stays the same when
    the batch size changes. `on_progress` is called with (done, total) as answers finish. Raises
    Refused for prompts that do not fit the context, RunFailed when the model's scores are NaN.
    """
    context = context_length(model)
    long = [index for index, prompt in enumerate(prompts) if not 0 < len(prompt) < context]
    if long:
        raise Refused(
            *(
                f"prompt {index} has {len(prompts[index])} tokens; the model takes 1 to "
                f"{context - 1}"
                for index in long
            )
        )
    eos = eos_ids(model, tokenizer)
    rows = [
        Row.new(
            prompt,
            replace(
                sampling,
                seed=derived_seed(sampling.seed, index),
                max_tokens=min(sampling.max_tokens, context - len(prompt)),
            ),
            tokenizer=tokenizer,
            eos=eos,
        )
        for index, prompt in enumerate(prompts)
    ]
    # prompts of one length are read together without padding; long ones first, so that no
    # straggler is left to run alone
    waiting = sorted(rows, key=lambda row: len(row.prompt), reverse=True)
    was_training = model.training
    model.eval()
    try:
        _run(Batch(model), waiting, batch_size, on_progress or (lambda done, total: None))
    finally:
        model.train(was_training)
    return [_answer(row) for row in rows]


def _run(
    batch: Batch, waiting: list[Row], batch_size: int, on_progress: Callable[[int, int], None]
) -> None:
    total, finished = len(waiting), 0
    while waiting or batch.rows:
        count = prefill_group(waiting, batch_size - len(batch.rows))
        if count:
            moved = batch.join(waiting[:count])
            del waiting[:count]
        else:
            moved = batch.step()
        done = finished + sum(row.finish_reason is not None for row, _ in moved)
        if done > finished:
            finished = done
            on_progress(finished, total)


def _answer(row: Row) -> Answer:
    if row.finish_reason not in ("stop", "length"):
        raise RunFailed(
            "the model's scores are NaN or infinite",
            advice="the weights are broken; use another checkpoint or dtype float32",
        )
    return Answer(row.prompt, tuple(row.token_ids), row.stream.text, row.finish_reason)
