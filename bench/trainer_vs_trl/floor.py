"""The operations of an ideal KTO epoch: the lower bound for both sides."""

from collections.abc import Sequence

from bench.trainer_vs_trl.rows import Row


def ideal_operations(
    rows: Sequence[Row], *, parameters: float, head: float, known: int = 0
) -> float:
    """Return the floating-point operations of one epoch that runs every prompt once per model.

    Policy: prompts and completions forward and backward (to inputs only: the weights are frozen,
    so that the backward pass costs as much as the forward pass), mismatched completions forward,
    on the cached prompt. Reference: the same forward passes for all rows but the first `known`.
    `parameters` are those of the linear layers, `head` those of the head, which runs on positions
    that predict a completion token. 2 operations per parameter and token; attention, normalisation
    and the adapter are left out.
    """
    new = rows[known:]
    prompts, completions = _tokens(rows)
    new_prompts, new_completions = _tokens(new)
    policy = 2 * (prompts + completions) + completions
    reference = new_prompts + 2 * new_completions
    heads = 2 * completions + completions + 2 * new_completions
    return 2.0 * parameters * (policy + reference) + 2.0 * head * heads


def padding(rows: Sequence[Row], batch_size: int) -> float:
    """Return the padded positions of batches (to their longest row) over the tokens."""
    lengths = [len(row.prompt_ids) + len(row.completion_ids) for row in rows]
    batches = [lengths[low : low + batch_size] for low in range(0, len(rows), batch_size)]
    return sum(len(batch) * max(batch) for batch in batches) / sum(lengths)


def _tokens(rows: Sequence[Row]) -> tuple[int, int]:
    prompts = {row.prompt: len(row.prompt_ids) for row in rows}
    return sum(prompts.values()), sum(len(row.completion_ids) for row in rows)
