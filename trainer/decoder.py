"""A decoder that is built like Llama, written out for training on the CPU.

transformers' layers are made for every device; on a CPU a third of a step passes in what they do
between the matrix products. For the plainest and most common build (Llama, Mistral, Qwen 2:
RMSNorm, rotary positions, grouped queries, a gated MLP) the same layers are run here over compiled
kernels (trainer/fused.py). Every other model takes transformers' way, and so does this build where
its layers are sharded, forget their activations or are trained themselves.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainer import fused
from trainer.attend import Attend, Layout, Rules
from trainer.fused import view
from trainer.lora import together

#: Layers whose forward pass is what is written out below. Their own classes, no others: what has
#: been sharded is of another class, and a subclass may differ in anything.
BUILDS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer")


def is_written_out(decoder: Any) -> bool:
    """Whether `hidden_states` may run this decoder instead of the decoder itself."""
    layers = getattr(decoder, "layers", ())
    weights = [] if not len(layers) else [decoder.norm.weight, *_norms(layers)]
    return (
        bool(weights)
        and all(
            type(layer).__name__ in BUILDS
            and type(layer).__module__.startswith("transformers.")
            and type(layer.mlp.act_fn).__name__ in ("SiLU", "SiLUActivation")
            and not layer.gradient_checkpointing
            for layer in layers
        )
        and all(
            weight.device.type == "cpu"
            and weight.dtype in (torch.float32, torch.bfloat16)
            and not weight.requires_grad
            for weight in weights
        )
    )


def hidden_states(decoder: Any, ids: Tensor, positions: Tensor, layout: Layout) -> Tensor:
    """Last hidden states (T, D) of a packed stream, ids and positions (1, T)."""
    h = decoder.embed_tokens(ids)
    cos, sin = (part[0].contiguous() for part in decoder.rotary_emb(h, position_ids=positions))
    h = h[0]
    delta = torch.zeros_like(h)
    for number, layer in enumerate(decoder.layers):
        attention, mlp = layer.self_attn, layer.mlp
        h, x = _normed(h, delta, layer.input_layernorm)
        q, k, v = (
            part.view(len(x), -1, attention.head_dim)
            for part in together((attention.q_proj, attention.k_proj, attention.v_proj), x)
        )
        rules = Rules(attention.scaling, _window(attention), None)
        attended = Attend.apply(q, k, v, cos, sin, layout, number, rules)
        delta = attention.o_proj(attended.flatten(1))
        h, x = _normed(h, delta, layer.post_attention_layernorm)
        delta = mlp.down_proj(_Gate.apply(*together((mlp.gate_proj, mlp.up_proj), x)))
    return _normed(h, delta, decoder.norm)[1]


def _norms(layers: Sequence[Any]) -> list[Tensor]:
    return [
        norm.weight
        for layer in layers
        for norm in (layer.input_layernorm, layer.post_attention_layernorm)
    ]


def _window(attention: Any) -> int | None:
    """Positions that the layer sees; Mistral's layers read it from the configuration."""
    if type(attention).__name__.startswith("Qwen2"):
        return attention.sliding_window
    return getattr(attention.config, "sliding_window", None)


def _normed(h: Tensor, delta: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    """h + delta, and its norm."""
    found: tuple[Tensor, Tensor] = _AddNorm.apply(h, delta, norm.weight, norm.variance_epsilon)
    return found


class _AddNorm(torch.autograd.Function):
    """h and delta (T, D) → h + delta and its RMSNorm, for a frozen weight (D,)."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, delta: Tensor, weight: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        total, y = torch.empty_like(h), torch.empty_like(h)
        scales = h.new_empty(len(h), dtype=torch.float32)
        fused.norm_forward(
            view(h), view(delta), view(weight), epsilon, view(total), view(y), view(scales)
        )
        ctx.save_for_backward(total, weight, scales)
        return total, y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor, d_y: Tensor) -> tuple[Tensor | None, ...]:
        total, weight, scales = ctx.saved_tensors
        d_h = torch.empty_like(total)
        fused.norm_backward(*map(view, (d_y, d_total, total, weight, scales, d_h)))
        return d_h, d_h, None, None


class _Gate(torch.autograd.Function):
    """silu(gate)·up, all (T, D)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        y = torch.empty_like(gate)
        fused.gate_forward(view(gate), view(up), view(y))
        ctx.save_for_backward(gate, up)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        d_gate, d_up = torch.empty_like(gate), torch.empty_like(up)
        fused.gate_backward(*map(view, (d_y, gate, up, d_gate, d_up)))
        return d_gate, d_up
