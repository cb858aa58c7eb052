"""Sequence log-probabilities of completions, spent on completion positions only."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import DynamicCache

Row = tuple[Sequence[int], Sequence[int]]  # (prompt ids, completion ids)

# Positions whose logits exist at one time: 256 × 49,152 in fp32 are 50 MB.
HEAD_CHUNK = 256
# Tokens below which a forward pass of their own costs more than repeating them.
_WORTH_SHARING = 8


def sequence_logprobs(model: Any, rows: Sequence[Row]) -> Tensor:
    """log π(y|x) of each row in nats, shape (B,), fp32, summed over completion tokens.

    Rows are padded on the right without an attention mask: with causal attention no position that
    is scored sees the padding, and attention without a mask takes the fast path. With gradients
    enabled the result carries them. Raises ValueError for an empty prompt or completion.
    """
    if any(not prompt or not completion for prompt, completion in rows):
        raise ValueError("a row needs at least one prompt token and one completion token")
    device = next(model.parameters()).device
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    where_row: list[int] = []
    where_column: list[int] = []
    for number, (prompt, completion) in enumerate(rows):
        length = len(prompt) + len(completion)
        ids[number, :length] = torch.tensor([*prompt, *completion])
        where_row += [number] * len(completion)
        # The token at position t is predicted by the hidden state at t − 1.
        where_column += range(len(prompt) - 1, length - 1)
    row_index = torch.tensor(where_row)
    column_index = torch.tensor(where_column)
    targets = ids[row_index, column_index + 1].to(device)
    row_index, column_index = row_index.to(device), column_index.to(device)
    shared = shared_prefix(model, [prompt for prompt, _ in rows])
    # The last column predicts nothing that is scored.
    hidden = hidden_states(model, ids[:, :-1].to(device), shared=shared)
    picked = hidden[row_index, column_index - shared]
    per_token = token_logprobs(head(model), picked, targets)
    return torch.zeros(len(rows), device=device).index_add(0, row_index, per_token)


def shared_prefix(model: Any, prompts: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all prompts share and can be computed once for all of them.

    The last prompt token stays with its row: its hidden state predicts the first scored token. 0
    where sharing would save less than it costs, and for models whose state is more than a cache
    of keys and values.
    """
    if len(prompts) < 2 or getattr(_causal_lm(model), "_is_stateful", False):
        return 0
    ordered = sorted(tuple(prompt) for prompt in prompts)
    first, last = ordered[0], ordered[-1]  # what these two share, all share
    shortest = min(len(prompt) for prompt in prompts) - 1
    length = 0
    while length < shortest and first[length] == last[length]:
        length += 1
    return length if length >= _WORTH_SHARING else 0


def hidden_states(model: Any, ids: Tensor, *, shared: int) -> Tensor:
    """Last hidden states of ids (B, T) without their first `shared` columns, (B, T − shared, D).

    The shared columns, equal in all rows, run once; their keys and values serve every row, and
    gradients flow back through them as through any other.
    """
    run = backbone(model)
    if shared == 0:
        return run(input_ids=ids, use_cache=False).last_hidden_state
    cache = DynamicCache()
    run(input_ids=ids[:1, :shared], past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        layer.keys = layer.keys.expand(len(ids), -1, -1, -1)
        layer.values = layer.values.expand(len(ids), -1, -1, -1)
    return run(input_ids=ids[:, shared:], past_key_values=cache, use_cache=True).last_hidden_state


def token_logprobs(
    logits_of: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor
) -> Tensor:
    """log-probability of each target, shape (N,), fp32, from hidden states (N, D).

    Worked through in chunks; with gradients enabled each chunk's gradient with respect to its
    hidden states is taken at once (a target's log-probability depends on its own position only,
    and the head is frozen), so that no logits outlive their chunk.
    """
    if torch.is_grad_enabled() and hidden.requires_grad:
        result: Tensor = _TokenLogprobs.apply(hidden, targets, logits_of)
        return result
    return torch.cat(
        [_chunk_logprobs(logits_of, chunk, wanted) for chunk, wanted in _chunks(hidden, targets)]
    )


def backbone(model: Any) -> Any:
    """The model below its head; an adapter, which lives in its layers, stays active."""
    return _causal_lm(model).get_decoder()


def head(model: Any) -> Callable[[Tensor], Tensor]:
    """Hidden states (N, D) to logits (N, V), with the scaling that some architectures put after
    the head (Cohere, Granite, Gemma 2)."""
    causal_lm = _causal_lm(model)
    config = causal_lm.config
    project = causal_lm.get_output_embeddings()
    factor = float(getattr(config, "logit_scale", None) or 1.0)
    factor /= float(getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)

    def logits_of(hidden: Tensor) -> Tensor:
        logits: Tensor = project(hidden)
        if factor != 1.0:
            logits = logits * factor
        return logits if cap is None else cap * torch.tanh(logits / cap)

    return logits_of


def _causal_lm(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class _TokenLogprobs(torch.autograd.Function):
    """token_logprobs with its gradient computed in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, logits_of: Callable[[Tensor], Tensor]
    ) -> Tensor:
        values, gradients = [], []
        for chunk, wanted in _chunks(hidden.detach(), targets):
            with torch.enable_grad():
                leaf = chunk.requires_grad_()
                logprobs = _chunk_logprobs(logits_of, leaf, wanted)
                (gradient,) = torch.autograd.grad(logprobs.sum(), leaf)
            values.append(logprobs.detach())
            gradients.append(gradient)
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].unsqueeze(1).to(gradient.dtype), None, None


def _chunk_logprobs(
    logits_of: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor
) -> Tensor:
    return -F.cross_entropy(logits_of(hidden).float(), targets, reduction="none")


def _chunks(hidden: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(hidden.split(HEAD_CHUNK), targets.split(HEAD_CHUNK), strict=True))
