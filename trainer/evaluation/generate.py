"""Answers to many prompts from a model as it is, with whatever adapter is attached to it.

This is for a model in use, for example during training. A base with several adapters answers faster
through versions.py, which takes the weights out of the model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from trainer.data.chat import eos_ids
from trainer.engine.batch import Batch, Row, context_length, prefill_group
from trainer.engine.sampling import Sampling, derived_seed
from trainer.errors import Refused, RunFailed

__all__ = ["Answer", "Sampling", "answer_of", "generate", "refuse_oversized", "run_rows"]


@dataclass(frozen=True)
class Answer:
    """One answer; `token_ids` end with the EOS token when the model ended it itself. `reasoning`
    is the text that came before it, where that was separated (measures/alone.py)."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    finish_reason: Literal["stop", "length"]
    reasoning: str = ""


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Return one answer for each prompt (token ids), in their order.

    Up to `batch_size` run at once, and the next prompt takes the place of an answer that is done.
    Answer i draws from a random stream seeded by (sampling.seed, i), so it stays the same when
    the batch size changes. `on_progress` is called with (done, total) as answers finish. Raises
    Refused for prompts that do not fit the context, RunFailed when the model's scores are NaN.
    """
    context = context_length(model)
    refuse_oversized(prompts, context)
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
    # prompts of one length are read together without padding; long ones first, so that none is
    # left to run alone
    waiting = sorted(rows, key=lambda row: len(row.prompt), reverse=True)
    was_training = model.training
    model.eval()
    try:
        run_rows(Batch(model), waiting, batch_size=batch_size, on_progress=on_progress)
    finally:
        model.train(was_training)
    return [answer_of(row) for row in rows]


def refuse_oversized(prompts: Sequence[Sequence[int]], context: int) -> None:
    """Raise Refused, naming every prompt that is empty or leaves no room in `context` tokens."""
    unfit = [index for index, prompt in enumerate(prompts) if not 0 < len(prompt) < context]
    if unfit:
        raise Refused(
            *(
                f"prompt {index} has {len(prompts[index])} tokens; the model takes 1 to "
                f"{context - 1}"
                for index in unfit
            )
        )


def run_rows(
    batch: Batch,
    rows: Sequence[Row],
    *,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None = None,
    on_step: Callable[[], None] | None = None,
    on_finished: Callable[[Row], None] | None = None,
) -> None:
    """Run `rows` to their end, at most `batch_size` at once and fewer where long ones would need
    more keys and values than the batch may hold.

    Rows begin in the given order. `on_step` is called before every pass through the model,
    `on_finished` with each row that has ended well; what they raise ends the run. Returns early at
    the first row whose scores are not finite: its finish_reason is "error", and others may have
    none.
    """
    waiting, finished = list(rows), 0
    longest = max((row.reach for row in rows), default=1)
    places = max(1, min(batch_size, batch.positions // longest))
    while waiting or batch.rows:
        if on_step is not None:
            on_step()
        count = prefill_group(waiting, places - len(batch.rows))
        if count:
            moved = batch.join(waiting[:count])
            del waiting[:count]
        else:
            moved = batch.step()
        if on_finished is not None:
            for row, _ in moved:
                if row.finish_reason in ("stop", "length"):
                    on_finished(row)
        if any(row.finish_reason == "error" for row, _ in moved):
            return
        done = finished + sum(row.finish_reason is not None for row, _ in moved)
        if done > finished:
            finished = done
            if on_progress is not None:
                on_progress(finished, len(rows))


def answer_of(row: Row) -> Answer:
    """Return a finished row's answer. Raises RunFailed where its scores were not finite."""
    if row.finish_reason not in ("stop", "length"):
        raise RunFailed(
            "the model's scores are NaN or infinite",
            advice="the weights are broken; use another checkpoint or dtype float32",
        )
    return Answer(row.prompt, tuple(row.token_ids), row.stream.text, row.finish_reason)
