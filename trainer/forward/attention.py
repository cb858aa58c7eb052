"""Attention over a packed forest: each segment sees itself and the segments above it.

Registered with transformers as one more attention implementation, so that every architecture
which takes its attention from that registry (Llama, Mistral, Mixtral, Qwen, Gemma, Phi, GPT-2 …)
runs on packed, shared rows without code of its own; sliding windows, soft-capping and sinks
(`s_aux`) arrive as arguments of the calling layer. The device's backend computes it.
"""

from typing import Any

from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trainer.backends import backend_for
from trainer.backends.base import Layout, Rules

NAME = "prospect_forest"


def forest_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query (1, H, T, D), key and value (1, G, T, D) with H a
    multiple of G → (1, T, H, D)."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rules = Rules(scale, sliding_window, softcap, s_aux)
    backend = backend_for(query.device)
    result = backend.forest_attention(query[0], key[0], value[0], layout, module.layer_idx, rules)
    return result.unsqueeze(0), None


ALL_ATTENTION_FUNCTIONS.register(NAME, forest_attention)
