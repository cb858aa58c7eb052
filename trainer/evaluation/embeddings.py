"""Pooled hidden states of prompts and completions: what the base model makes of a text, as one
vector. Works in every language that the base model knows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from trainer.forward.head import causal_lm_of
from trainer.forward.logprobs import Row
from trainer.models.loading import LoadedBase
from trainer.models.lora import LoraLinear

#: The layer that is read, as a share of the depth. On SmolLM2-135M the layers from half to two
#: thirds of the depth tell liked from disliked answers best (AUC 0.75; the last layer 0.59), later
#: ones an answer's own prompt from another (0.99; here 0.95). docs/log.md has the figures.
_DEPTH = 2 / 3
#: Tokens of one forward pass, padding included. The states of all layers exist at one time.
_TOKEN_BUDGET = 2048

States = NDArray[np.float32]


@dataclass(frozen=True)
class PooledStates:
    """Mean states of rows, float32, each of shape (n, hidden)."""

    prompt: States
    completion: States


def pooled_states(
    base: LoadedBase, rows: Sequence[Row], *, on_step: Callable[[], None] | None = None
) -> PooledStates:
    """Return the mean hidden state of each row's prompt tokens and of its completion tokens.

    Each token's state is scaled to length 1 before the mean: in most models the states of the first
    token and of some separators are hundreds of times as long as the others (Sun et al. 2024,
    "Massive Activations in Large Language Models") and would outweigh them. An empty completion
    gets the state of the prompt's last token. The completion's states depend on the prompt, since
    they are read in its context. `on_step` is called before every pass through the model; what it
    raises ends the work.

    Raises ValueError for an empty prompt, and where an adapter is switched on: the states of
    different adapters cannot be compared.
    """
    if any(not prompt for prompt, _ in rows):
        raise ValueError("a row needs at least one prompt token")
    if any(isinstance(part, LoraLinear) and part.active for part in base.model.modules()):
        raise ValueError("pooled states are read from the base model: switch the adapter off")
    hidden = base.model.config.get_text_config().hidden_size
    found = np.zeros((2, len(rows), hidden), np.float32)
    for batch in _batches([len(prompt) + len(completion) for prompt, completion in rows]):
        if on_step is not None:
            on_step()
        states = _states(base, [(*rows[row][0], *rows[row][1]) for row in batch])
        for row, state in zip(batch, states, strict=True):
            boundary, end = len(rows[row][0]), sum(map(len, rows[row]))
            found[0, row] = state[:boundary].mean(0).cpu().numpy()
            first = boundary if end > boundary else boundary - 1
            found[1, row] = state[first:end].mean(0).cpu().numpy()
    return PooledStates(found[0], found[1])


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield row indices in groups of similar length that stay within the budget when padded; a
    longer row is a group of its own."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if batch and lengths[row] * (len(batch) + 1) > _TOKEN_BUDGET:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _states(base: LoadedBase, batch: Sequence[Sequence[int]]) -> Tensor:
    """Return states (B, T, hidden) of length 1, fp32; those of the padding mean nothing.

    Rows are padded on the right, without a mask: causality hides the padding from their tokens.
    """
    ids = torch.zeros((len(batch), max(map(len, batch))), dtype=torch.long)
    for number, row in enumerate(batch):
        ids[number, : len(row)] = torch.tensor(row)
    decoder = causal_lm_of(base.model).get_decoder()
    with torch.no_grad():
        layers = decoder(
            input_ids=ids.to(base.device), use_cache=False, output_hidden_states=True
        ).hidden_states  # the embeddings' first
        chosen: Tensor = layers[round(_DEPTH * (len(layers) - 1))]
        return F.normalize(chosen.float(), dim=-1)
