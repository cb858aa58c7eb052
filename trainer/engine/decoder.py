"""One more token for every row, on models that are built like Llama, in half as many steps.

transformers' own forward is made for every architecture and for training: on a small model most of
a decoding step is spent between the matrix products. For the plainest and most common build (Llama,
Mistral, Qwen 2: RMSNorm, rotary positions, grouped queries, a gated MLP) the same arithmetic is
written out here over the engine's fused products and its cache. All other models take
transformers' way, and so do prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.engine.cache import RowCache

#: config.model_type of what is written out below.
BUILDS = ("llama", "mistral", "qwen2")
PARTS = {
    "": ("input_layernorm", "mlp", "post_attention_layernorm", "self_attn"),
    "self_attn": ("k_proj", "o_proj", "q_proj", "v_proj"),
    "mlp": ("act_fn", "down_proj", "gate_proj", "up_proj"),
}


class Whole(Protocol):
    """Linear layers that read the same input, as one product with all adapters (adapters.Group)."""

    def whole(self, x: Tensor) -> Tensor:
        """(B, in) → (B, out of all layers)."""


@dataclass(frozen=True)
class _Layer:
    before_attention: nn.Module
    qkv: Whole
    out: Whole
    before_mlp: nn.Module
    gate_up: Whole
    activation: nn.Module
    down: Whole
    scaling: float
    kind: str


class LlamaDecoder:
    """Decodes for one model; `products` are the groups of its linear layers."""

    def __init__(self, model: Any, products: Mapping[tuple[str, ...], Whole]) -> None:
        config = model.config.get_text_config()
        decoder = model.get_decoder()
        self._embed = model.get_input_embeddings()
        self._rotary = decoder.rotary_emb
        self._norm = decoder.norm
        self._head = model.get_output_embeddings()
        first = decoder.layers[0].self_attn
        self._head_size: int = first.head_dim
        self._groups: int = config.num_key_value_heads
        self._heads: int = config.num_attention_heads
        path = next(name for name, module in model.named_modules() if module is decoder)
        kinds = getattr(config, "layer_types", None)
        self._layers = []
        for index, layer in enumerate(decoder.layers):
            at = f"{path}.layers.{index}"
            attention, mlp = f"{at}.self_attn", f"{at}.mlp"
            self._layers.append(
                _Layer(
                    before_attention=layer.input_layernorm,
                    qkv=products[tuple(f"{attention}.{part}_proj" for part in "qkv")],
                    out=products[(f"{attention}.o_proj",)],
                    before_mlp=layer.post_attention_layernorm,
                    gate_up=products[f"{mlp}.gate_proj", f"{mlp}.up_proj"],
                    activation=layer.mlp.act_fn,
                    down=products[(f"{mlp}.down_proj",)],
                    scaling=layer.self_attn.scaling,
                    kind="sliding_attention" if kinds is None else kinds[index],
                )
            )

    def __call__(
        self, ids: Tensor, positions: Tensor, masks: Mapping[str, Tensor], cache: RowCache
    ) -> Tensor:
        """Scores (B, V) of what follows `ids` (B,), each at its position (B, 1).

        `masks` (B, 1, 1, L) by the kind of layer: "full_attention", "sliding_attention".
        """
        count, size = len(ids), self._head_size
        turned = self._heads + self._groups
        hidden = self._embed(ids)
        cos, sin = self._rotary(hidden, positions)  # (B, 1, D)
        half = size // 2
        # rolled by half a head, the first half takes minus the second: its sine carries the sign
        sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
        for layer, kept in zip(self._layers, cache.layers, strict=True):
            heads = layer.qkv.whole(layer.before_attention(hidden)).view(count, -1, size)
            queries_keys = heads[:, :turned]
            turn = torch.addcmul(queries_keys * cos, queries_keys.roll(half, dims=-1), sin)
            keys, values = kept.update(turn[:, self._heads :, None], heads[:, turned:, None])
            attended = F.scaled_dot_product_attention(
                # the heads that share keys stand where several positions would
                turn[:, : self._heads].view(count, self._groups, -1, size),
                keys,
                values,
                attn_mask=masks[layer.kind],
                scale=layer.scaling,
            )
            hidden = hidden + layer.out.whole(attended.reshape(count, -1))
            gate, up = layer.gate_up.whole(layer.before_mlp(hidden)).chunk(2, dim=-1)
            hidden = hidden + layer.down.whole(layer.activation(gate) * up)
        scores: Tensor = self._head(self._norm(hidden))
        return scores


def decoder_of(model: Any, products: Mapping[tuple[str, ...], Whole]) -> "LlamaDecoder | None":
    """The decoder for a model that is built as it expects, None for any other."""
    config = model.config.get_text_config()
    if config.model_type not in BUILDS or config._attn_implementation != "sdpa":
        return None
    layers: Sequence[nn.Module] = model.get_decoder().layers
    for layer in layers:
        for path, parts in PARTS.items():
            if (
                tuple(sorted(name for name, _ in layer.get_submodule(path).named_children()))
                != parts
            ):
                return None
    try:
        return LlamaDecoder(model, products)
    except KeyError:  # layers of unlike kinds, which are not run as one product
        return None
