"""The running batch: rows join and leave between two tokens. The one place that decodes.

trainer/evaluation/{generate,versions}.py and the engine's scheduler use it; none of them handles
caches, masks or positions.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from trainer.backends import model_decoder
from trainer.backends.base import Decoder, PromptCache
from trainer.backends.kv_cache import Layers, RowCache
from trainer.engine.cache_limits import cache_limits
from trainer.engine.prefix_cache import PrefixCache
from trainer.engine.sampling import (
    NO_TOKEN,
    Earlier,
    Sampler,
    Sampling,
    TokenScore,
    choose,
    scored,
)
from trainer.engine.text import TextStream
from trainer.errors import Refused
from trainer.transfers import on_device

FinishReason = Literal["stop", "length", "error"]

#: Tokens (with padding) that are read at once.
PREFILL_TOKENS = 1024
#: The same while answers are running, which wait for it.
CHUNK_TOKENS = 256


@dataclass(eq=False)
class Row:
    """One answer that is being written."""

    prompt: tuple[int, ...]
    sampler: Sampler
    stream: TextStream
    eos: frozenset[int]
    slot: int = 0
    token_ids: list[int] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
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
        eos = frozenset() if sampling.ignore_eos else eos
        return cls(tuple(prompt), Sampler(sampling), stream, eos, slot)

    @property
    def reach(self) -> int:
        """Return the number of positions that this row may need."""
        return len(self.prompt) + self.sampler.sampling.max_tokens

    def take(self, token: int) -> str:
        """Append the next token; returns the text that can be shown now."""
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


@dataclass(eq=False)
class _Reading:
    """Prompts that are being read: several short ones at once, or one a chunk at a time."""

    rows: list[Row]
    cache: PromptCache
    done: int = 0


class Batch:
    """Rows of any length, adapter and sampling that are decoded together, by transformers or by
    the engine's own decoder, which has adapters of its own.

    `prefix_cache` keeps keys and values for later prompts that begin the same. `positions` of keys
    and values, padding included, may be held at once, which those who add rows see to; by default
    as many as the device has memory for.
    """

    def __init__(
        self,
        model: Any,
        decoder: Decoder | None = None,
        prefix_cache: PrefixCache | None = None,
        positions: int | None = None,
    ) -> None:
        self.model = model
        self.positions = cache_limits(model).batch if positions is None else positions
        self.rows: list[Row] = []
        self.reused_tokens = 0
        self._decoder = model_decoder(model) if decoder is None else decoder
        self._prefix_cache = prefix_cache
        self._cache = RowCache()
        self._reading: deque[_Reading] = deque()

    @property
    def reading(self) -> int:
        """Return how many groups of prompts are being read."""
        return len(self._reading)

    def join(self, rows: Sequence[Row]) -> list[tuple[Row, str]]:
        """Read the prompts of `rows` to their end and gives each its first token.

        Returns (row, text to show); those that are not finished run on.
        """
        self.begin(rows)
        moved: list[tuple[Row, str]] = []
        while self._reading:
            moved += self.read()
        return moved

    @torch.inference_mode()
    def begin(self, rows: Sequence[Row]) -> None:
        """Put prompts in line to be read; together they should fit one chunk."""
        fresh = []
        for row in rows:
            length, layers = self._known(row)
            if not length:
                fresh.append(row)
                continue
            self._reading.append(_Reading([row], self._cache_for([row], layers), done=length))
            self.reused_tokens += length
        if fresh:
            self._reading.append(_Reading(fresh, self._cache_for(fresh)))

    def _cache_for(self, rows: Sequence[Row], known: Layers = ()) -> PromptCache:
        """Return a cache for prompts to read; `known` is the beginning of the first."""
        return self._decoder.cache(len(rows), max(len(row.prompt) for row in rows), known)

    def _known(self, row: Row) -> tuple[int, Layers]:
        return (
            (0, ()) if self._prefix_cache is None else self._prefix_cache.find(row.slot, row.prompt)
        )

    @torch.inference_mode()
    def read(self, tokens: int = PREFILL_TOKENS) -> list[tuple[Row, str]]:
        """Read up to `tokens` more of the prompts that are next in line.

        Returns (row, text to show) of those that were read to their end, which run from now on.
        """
        reading = self._reading.popleft()
        rows, start = reading.rows, reading.done
        lengths = [len(row.prompt) for row in rows]
        # several are read at once, a long one in chunks
        end = max(lengths) if len(rows) > 1 else min(lengths[0], start + tokens)
        ended = end == max(lengths)
        parts = [row.prompt[start:end] for row in rows]
        scores = self._decoder.read(
            parts,
            start,
            [row.slot for row in rows],
            reading.cache,
            running=[row.slot for row in self.rows],
            scored=ended,
        )
        if not ended:
            reading.done = end
            self._reading.append(reading)  # the next in line is read first
            return []
        self._cache.join(reading.cache, lengths)
        self.rows += rows
        return self._take(rows, scores)

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, str]]:
        """One more token for every row; returns (row, text to show); finished rows are gone."""
        rows = list(self.rows)
        last = [row.token_ids[-1:] for row in rows]
        scores = self._decoder.step(last, [row.slot for row in rows], self._cache)
        self._cache.end_step()
        return self._take(rows, scores)

    @torch.inference_mode()
    def leave(self, row: Row) -> None:
        """Take a row out, also before it is finished."""
        for reading in self._reading:
            if row in reading.rows:
                reading.rows.remove(row)
                if not reading.rows:
                    self._reading.remove(reading)
                return
        index = self.rows.index(row)
        if self._prefix_cache is not None and row.finish_reason != "error":
            known = [*row.prompt, *row.token_ids][: self._cache.lengths[index]]
            self._prefix_cache.store(row.slot, known, self._cache.row(index))
        self._cache.leave(index)
        self.rows[index] = self.rows[-1]
        self.rows.pop()

    def _take(self, rows: Sequence[Row], logits: Tensor) -> list[tuple[Row, str]]:
        before = [Earlier(row.prompt, row.token_ids) for row in rows]
        tokens = choose(logits, [row.sampler for row in rows], before)
        _score(rows, tokens, logits)
        pieces = [(row, row.take(token)) for row, token in zip(rows, tokens, strict=True)]
        for row in rows:
            if row.finish_reason is not None:
                self.leave(row)
        return pieces


def _score(rows: Sequence[Row], tokens: Sequence[int], logits: Tensor) -> None:
    """Add the log-probability of its token to each row that asks for it."""
    wanted = {
        index: row.sampler.sampling.logprobs
        for index, row in enumerate(rows)
        if row.sampler.sampling.logprobs is not None and tokens[index] != NO_TOKEN
    }
    if not wanted:
        return
    places = on_device(list(wanted), logits.device)
    chosen = [tokens[index] for index in wanted]
    found = scored(logits[places], chosen, list(wanted.values()))
    for index, score in zip(wanted, found, strict=True):
        rows[index].scores.append(score)


def prefill_group(waiting: Sequence[Row], places: int, tokens: int = PREFILL_TOKENS) -> int:
    """Return how many of `waiting`, in order, may be read together: at least one if there is a
    place, and of several no more than `tokens`, padding included."""
    count, width = 0, 0
    for row in waiting[:places]:
        width = max(width, len(row.prompt))
        if count and width * (count + 1) > tokens:
            break
        count += 1
    return count


def context_length(model: Any) -> int:
    """Return tokens of prompt and answer together that this model can hold. Raises Refused for
    models that keep no keys and values."""
    if getattr(model, "_is_stateful", False):
        raise Refused(
            f"{type(model).__name__} keeps a recurrent state, which cannot be served here: choose "
            "a transformer with attention in every layer."
        )
    config = model.config.get_text_config()
    known = getattr(config, "max_position_embeddings", None)
    return known if isinstance(known, int) and known > 0 else 2048
