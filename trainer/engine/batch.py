"""The running batch: rows join and leave between two tokens. The one place that decodes.

`trainer.generate` and the engine's scheduler both drive it; neither knows about caches, masks or
positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from trainer.engine.cache import RowCache
from trainer.engine.sampling import NO_TOKEN, Sampler, Sampling, choose
from trainer.engine.text import TextStream
from trainer.errors import Refused

FinishReason = Literal["stop", "length", "error"]

#: Tokens (with padding) of one prefill: bounds how long running answers wait for newcomers.
PREFILL_TOKENS = 1024


class Adapters(Protocol):
    """What the batch needs to know of adapters: which one each row uses (0 is the base)."""

    def select(self, slots: Sequence[int], running: Sequence[int]) -> None:
        """Makes the next forward use these slots, one a row; `running` are all in the batch."""


@dataclass(eq=False)
class Row:
    """One answer that is being written."""

    prompt: tuple[int, ...]
    sampler: Sampler
    stream: TextStream
    eos: frozenset[int]
    slot: int = 0
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    @classmethod
    def new(
        cls,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        tokenizer: Any,
        eos: frozenset[int],
        slot: int = 0,
    ) -> "Row":
        stream = TextStream(tokenizer, sampling.stop)
        return cls(tuple(prompt), Sampler(sampling), stream, eos, slot)

    @property
    def reach(self) -> int:
        """Positions this row may come to need."""
        return len(self.prompt) + self.sampler.sampling.max_tokens

    def take(self, token: int) -> str:
        """Appends the next token; returns the text that can be shown now."""
        if token == NO_TOKEN:
            self.finish_reason = "error"
            return ""
        self.token_ids.append(token)
        if token in self.eos:
            self.finish_reason = "stop"
            return self.stream.finish()
        piece = self.stream.push(token)
        if self.stream.stopped:
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.sampler.sampling.max_tokens:
            self.finish_reason = "length"
            piece += self.stream.finish()
        return piece


class Batch:
    """Rows of any length, adapter and sampling that are decoded together."""

    def __init__(self, model: Any, adapters: Adapters | None = None) -> None:
        self.model = model
        self.rows: list[Row] = []
        self._adapters = adapters
        self._cache = RowCache()

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> list[tuple[Row, str]]:
        """Reads the prompts of `rows` and gives each its first token.

        Returns (row, text to show) in their order; those that are not finished run on. Shorter
        prompts are padded on the right: nothing looks ahead, so no mask is needed.
        """
        lengths = [len(row.prompt) for row in rows]
        ids = torch.zeros(len(rows), max(lengths), dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : lengths[index]] = torch.tensor(row.prompt)
        self._select(rows, [*self.rows, *rows])
        prefilled = DynamicCache()
        ends = sorted({length - 1 for length in lengths})
        logits = self.model(
            input_ids=ids.to(self.model.device),
            past_key_values=prefilled,
            use_cache=True,
            logits_to_keep=torch.tensor(ends, device=self.model.device),
        ).logits
        last = logits[range(len(rows)), [ends.index(length - 1) for length in lengths]]
        self._cache.join(prefilled, lengths)
        self.rows += rows
        return self._take(rows, last)

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, str]]:
        """One more token for every row; returns (row, text to show); finished rows are gone."""
        rows = list(self.rows)
        self._select(rows, rows)
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        positions, full, near = self._cache.begin_step(self.model.dtype, window)
        kinds = getattr(config, "layer_types", None)
        mask: Any = near if kinds is None else full
        if kinds is not None and "sliding_attention" in kinds:  # each layer takes its own
            mask = {"full_attention": full, "sliding_attention": near}
        last = torch.tensor([[row.token_ids[-1]] for row in rows])
        logits = self.model(
            input_ids=last.to(self.model.device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        ).logits
        self._cache.end_step()
        return self._take(rows, logits[:, -1])

    def leave(self, row: Row) -> None:
        """Takes a row out before it is finished."""
        index = self.rows.index(row)
        self._cache.leave(index)
        self.rows[index] = self.rows[-1]
        self.rows.pop()

    def _take(self, rows: Sequence[Row], logits: Tensor) -> list[tuple[Row, str]]:
        seen = [[*row.prompt, *row.token_ids] for row in rows]
        tokens = choose(logits, [row.sampler for row in rows], seen)
        pieces = [(row, row.take(token)) for row, token in zip(rows, tokens, strict=True)]
        for row in rows:
            if row.finish_reason is not None:
                self.leave(row)
        return pieces

    def _select(self, rows: Sequence[Row], running: Sequence[Row]) -> None:
        if self._adapters is not None:
            self._adapters.select([row.slot for row in rows], [row.slot for row in running])


def prefill_group(waiting: Sequence[Row], places: int) -> int:
    """How many of `waiting`, in order, may be read together: at least one if there is a place."""
    count, width = 0, 0
    for row in waiting[:places]:
        width = max(width, len(row.prompt))
        if count and width * (count + 1) > PREFILL_TOKENS:
            break
        count += 1
    return count


def context_length(model: Any) -> int:
    """Tokens of prompt and answer together that this model can hold. Raises Refused for models
    that keep no keys and values."""
    if getattr(model, "_is_stateful", False):
        raise Refused(
            f"{type(model).__name__} keeps a recurrent state, which cannot be served here: choose "
            "a transformer with attention in every layer."
        )
    config = model.config.get_text_config()
    known = getattr(config, "max_position_embeddings", None)
    return known if isinstance(known, int) and known > 0 else 2048
