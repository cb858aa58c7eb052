"""The decoding core: a batch of answers that requests join and leave at token boundaries.

`trainer.generate` runs it to its end for a list of prompts; the engine's scheduler keeps it
going. Rows of different lengths share one left-padded key-value cache. Each row samples with a
generator of its own, so what it writes does not depend on who else is in the batch.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

FinishReason = Literal["stop", "length"]
GROWTH = 64  # positions by which a full buffer grows


@dataclass(frozen=True)
class Sampling:
    """How an answer is sampled. `temperature` 0 takes the likeliest token; `top_k` 0 is off."""

    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(eq=False)
class Row:
    """One answer that is being written. `adapter` is the name PEFT knows; None is the base."""

    prompt_ids: Sequence[int]
    sampling: Sampling
    eos: frozenset[int]
    generator: torch.Generator
    adapter: str | None = None
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def take(self, token: int) -> None:
        """Appends a sampled token and notes whether it was the last one."""
        self.token_ids.append(token)
        if token in self.eos:
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.sampling.max_tokens:
            self.finish_reason = "length"


def seeded(seed: int | None, device: torch.device) -> torch.Generator:
    """A generator of its own; None takes fresh entropy."""
    generator = torch.Generator(device="cpu")
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


class BufferedLayer(DynamicLayer):
    """Keys and values (B, H, T, D) in a buffer with room to grow: a step writes, never copies."""

    def __init__(self) -> None:
        super().__init__()
        self.key_buffer: Tensor | None = None
        self.value_buffer: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self.key_buffer is None or self.value_buffer is None:
            self.lazy_initialization(key_states, value_states)
            self.key_buffer, self.value_buffer = roomy(key_states), roomy(value_states)
        elif end > self.key_buffer.shape[-2]:
            self.key_buffer = roomy(self.key_buffer[:, :, :start], end)
            self.value_buffer = roomy(self.value_buffer[:, :, :start], end)
        self.key_buffer[:, :, start:end] = key_states
        self.value_buffer[:, :, start:end] = value_states
        self.keys = self.key_buffer[:, :, :end]
        self.values = self.value_buffer[:, :, :end]
        return self.keys, self.values

    def replace(self, keys: Tensor, values: Tensor) -> None:
        """Takes other rows' states instead of its own."""
        length = keys.shape[-2]
        self.key_buffer, self.value_buffer = roomy(keys), roomy(values)
        self.keys = self.key_buffer[:, :, :length]
        self.values = self.value_buffer[:, :, :length]


def roomy(states: Tensor, least: int = 0) -> Tensor:
    """A copy of (B, H, T, D) with GROWTH free positions behind max(T, least)."""
    batch, heads, length, width = states.shape
    room = states.new_empty(batch, heads, max(length, least) + GROWTH, width)
    room[:, :, :length] = states
    return room


def new_cache(layers: int) -> DynamicCache:
    """An empty cache of buffered layers."""
    cache = DynamicCache()
    cache.layers = [BufferedLayer() for _ in range(layers)]
    cache.layer_class_to_replicate = None
    return cache


class DecodingBatch:
    """Rows in flight on one model. Not thread-safe: one thread owns it.

    `with_adapters` makes the model compute each row with its adapter: it is given the rows'
    adapter names and returns (context, extra keyword arguments of the forward).
    """

    def __init__(
        self,
        model: Any,
        *,
        with_adapters: Callable[
            [list[str | None]], tuple[AbstractContextManager[Any], dict[str, Any]]
        ]
        | None = None,
    ) -> None:
        self.model = model
        self.device: torch.device = model.device
        self.layers = int(model.config.get_text_config().num_hidden_layers)
        self.with_adapters = with_adapters or (lambda names: (nullcontext(), {}))
        self.rows: list[Row] = []
        self.cache = new_cache(self.layers)
        self.lengths: list[int] = []  # positions of each row that hold real tokens

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> None:
        """Reads the rows' prompts, samples their first token and takes them into the batch."""
        if not rows:
            return
        lengths = [len(row.prompt_ids) for row in rows]
        width = max(lengths)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, width - lengths[index] :] = torch.tensor(row.prompt_ids)
        cache = new_cache(self.layers)
        logits = self._forward(rows, ids, cache, lengths)
        self._sample(rows, logits)
        self._merge(cache, width, rows, lengths)
        self._drop_finished()

    @torch.inference_mode()
    def step(self) -> None:
        """One more token for every row; finished rows leave."""
        if not self.rows:
            return
        ids = torch.tensor([[row.token_ids[-1]] for row in self.rows])
        self.lengths = [length + 1 for length in self.lengths]
        logits = self._forward(self.rows, ids, self.cache, self.lengths)
        self._sample(self.rows, logits)
        self._drop_finished()

    def remove(self, rows: Iterable[Row]) -> None:
        """Lets rows go that nobody waits for any more."""
        gone = {id(row) for row in rows}
        self._keep([index for index, row in enumerate(self.rows) if id(row) not in gone])

    def _forward(
        self, rows: Sequence[Row], ids: Tensor, cache: DynamicCache, lengths: list[int]
    ) -> Tensor:
        """Logits (B, V) in float32 after each row's last token; the cache grows by ids."""
        total = cache.get_seq_length() + ids.shape[1]
        held = torch.tensor(lengths).unsqueeze(1)
        columns = torch.arange(total).unsqueeze(0)
        mask = columns >= total - held
        positions = (columns - (total - held)).clamp(min=0)[:, -ids.shape[1] :]
        padded = not bool(mask.all())
        context, extra = self.with_adapters([row.adapter for row in rows])
        with context:
            output = self.model(
                input_ids=ids.to(self.device),
                # without padding there is nothing to mask, and attention is faster for it
                attention_mask=mask.long().to(self.device) if padded else None,
                position_ids=positions.to(self.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **extra,
            )
        return output.logits[:, -1].float()

    def _sample(self, rows: Sequence[Row], logits: Tensor) -> None:
        for row, token in zip(rows, sample(rows, logits), strict=True):
            row.take(token)

    def _merge(
        self, cache: DynamicCache, width: int, rows: Sequence[Row], lengths: list[int]
    ) -> None:
        if not self.rows:
            self.cache, self.rows, self.lengths = cache, list(rows), list(lengths)
            return
        total = max(self.cache.get_seq_length(), width)
        for mine, theirs in zip(self.cache.layers, cache.layers, strict=True):
            mine.replace(
                torch.cat([left_padded(mine.keys, total), left_padded(theirs.keys, total)]),
                torch.cat([left_padded(mine.values, total), left_padded(theirs.values, total)]),
            )
        self.rows += rows
        self.lengths += lengths

    def _drop_finished(self) -> None:
        going_on = [i for i, row in enumerate(self.rows) if row.finish_reason is None]
        if len(going_on) < len(self.rows):
            self._keep(going_on)

    def _keep(self, indices: list[int]) -> None:
        if len(indices) == len(self.rows):
            return
        self.rows = [self.rows[i] for i in indices]
        self.lengths = [self.lengths[i] for i in indices]
        if not self.rows:
            self.cache = new_cache(self.layers)
            return
        chosen = torch.tensor(indices, device=self.device)
        needed = max(self.lengths)
        for layer in self.cache.layers:
            layer.replace(
                layer.keys.index_select(0, chosen)[:, :, -needed:],
                layer.values.index_select(0, chosen)[:, :, -needed:],
            )


def left_padded(states: Tensor, total: int) -> Tensor:
    """(B, H, T, D) → (B, H, total, D) with zeros before; masked, so never read."""
    missing = total - states.shape[-2]
    return torch.nn.functional.pad(states, (0, 0, missing, 0)) if missing else states


def sample(rows: Sequence[Row], logits: Tensor) -> list[int]:
    """One token for each row from logits (B, V), each by its own sampling parameters."""
    if all(row.sampling.temperature == 0 and row.sampling.repetition_penalty == 1 for row in rows):
        return [int(token) for token in logits.argmax(-1).tolist()]
    return [sample_one(row, logits[index].cpu()) for index, row in enumerate(rows)]


def sample_one(row: Row, logits: Tensor) -> int:
    """One token from logits (V,): penalty, temperature, top-k, top-p, in the usual order."""
    how = row.sampling
    if how.repetition_penalty != 1:
        seen = torch.tensor(sorted({*row.prompt_ids, *row.token_ids}))
        scores = logits[seen]
        logits[seen] = torch.where(
            scores > 0, scores / how.repetition_penalty, scores * how.repetition_penalty
        )
    if how.temperature == 0:
        return int(logits.argmax())
    logits = logits / how.temperature
    if 0 < how.top_k < logits.numel():
        logits[logits < logits.topk(how.top_k).values[-1]] = -torch.inf
    probabilities = logits.softmax(-1)
    if how.top_p < 1:
        probabilities = nucleus(probabilities, how.top_p)
    # the inverse of the cumulative distribution at one uniform number: one draw a token,
    # whatever the vocabulary
    draw = torch.rand((), generator=row.generator, dtype=torch.float64)
    cumulative = probabilities.double().cumsum(0)
    index = int(torch.searchsorted(cumulative, draw * cumulative[-1], right=True))
    return min(index, probabilities.numel() - 1)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zeroes all but the smallest set of tokens whose mass reaches `top_p`."""
    # the nucleus nearly always fits into the likeliest 1,024: sorting 49,152 costs ten times more
    for count in (1024, probabilities.numel()):
        top = probabilities.topk(min(count, probabilities.numel()))
        before = top.values.cumsum(0) - top.values
        if before[-1] >= top_p or top.values.numel() == probabilities.numel():
            break
    kept = torch.zeros_like(probabilities)
    inside = before < top_p
    kept[top.indices[inside]] = top.values[inside]
    return kept
