"""Decode through transformers: prompts with its own cache, running rows with ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.backends.base import AdapterWeights, PromptCache
from trainer.backends.kv_cache import Layers, PromptRows, RowCache
from trainer.transfers import on_device


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
        return PromptRows(positions, known)

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
        width = max(lengths)
        ids = [[*part, *[0] * (width - len(part))] for part in parts]
        ends = sorted({length - 1 for length in lengths})
        self.select(slots, [*running, *slots])
        device = self.model.device
        logits = self.model(
            input_ids=on_device(ids, device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=on_device(ends, device),
        ).logits
        places = on_device([ends.index(length - 1) for length in lengths], device)
        scores: Tensor = logits[torch.arange(len(parts), device=device), places]
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
            input_ids=on_device(tokens, self.model.device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        return scores
