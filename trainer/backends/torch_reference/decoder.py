"""Decode through transformers: prompts with its own cache, running rows with ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from trainer.backends.base import AdapterWeights, PromptCache
from trainer.backends.kv_cache import Layers, RowCache


class TransformersDecoder:
    """trainer.backends.base.Decoder of a model as it is, without adapters of its own.

    Rounding depends on how many rows and adapters run together.
    """

    batch_invariant = False

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        return {}

    @property
    def slots(self) -> list[int]:
        return []

    def attach(self, weights: AdapterWeights) -> int:
        raise NotImplementedError("this decoder runs the base model only: it holds no adapters")

    def detach(self, slot: int) -> None:
        raise NotImplementedError("this decoder runs the base model only: it holds no adapters")

    def select(self, slots: Sequence[int], running: Sequence[int]) -> None:
        """Use `slots` for the rows of the next forward pass; `running` are the slots of the whole
        batch."""

    def cache(self, rows: int, positions: int, known: Layers = ()) -> PromptCache:
        cache = DynamicCache()
        for index, (keys, values) in enumerate(known):
            cache.update(keys, values, index)
        return cache

    def read(
        self,
        parts: Sequence[Sequence[int]],
        start: int,
        slots: Sequence[int],
        cache: PromptCache,
        *,
        running: Sequence[int] = (),
        scored: bool = True,
    ) -> Tensor:
        """Shorter parts are padded on the right: nothing looks ahead, so no mask is needed."""
        lengths = [len(part) for part in parts]
        ids = torch.zeros(len(parts), max(lengths), dtype=torch.long)
        for index, part in enumerate(parts):
            ids[index, : len(part)] = torch.tensor(part)
        ends = sorted({length - 1 for length in lengths})
        self.select(slots, [*running, *slots])
        logits = self.model(
            input_ids=ids.to(self.model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=torch.tensor(ends, device=self.model.device),
        ).logits
        scores: Tensor = logits[range(len(parts)), [ends.index(length - 1) for length in lengths]]
        return scores

    def step(
        self, tokens: Sequence[Sequence[int]], slots: Sequence[int], cache: RowCache
    ) -> Tensor:
        self.select(slots, slots)
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        positions, full, near = cache.begin_step(self.model.dtype, window)
        kinds = getattr(config, "layer_types", None)
        mask: Any = near if kinds is None else full
        if kinds is not None and "sliding_attention" in kinds:  # each layer takes its own
            mask = {"full_attention": full, "sliding_attention": near}
        scores: Tensor = self.model(
            input_ids=torch.tensor(tokens).to(self.model.device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        return scores
