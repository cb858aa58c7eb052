"""A Llama-like decoder for training on the CPU, over compiled kernels.

On a CPU a third of a step of transformers' layers is spent between the matrix products. For the
most common architecture (Llama, Mistral, Qwen 2: RMSNorm, rotary positions, grouped queries, a
gated MLP) the same layers are computed here over compiled kernels (fused.py). Every other model
runs through transformers, and so does this architecture where its layers are sharded or trained.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from trainer.backends.base import Layout, Rules
from trainer.backends.cpu import fused
from trainer.backends.cpu.forest_attention import Attend
from trainer.backends.cpu.fused import view
from trainer.models.lora import together

#: Classes of layers whose forward pass is implemented below. No subclasses: a sharded layer is of
#: another class, and a subclass may differ in anything.
BUILDS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer")


def implements(decoder: Any) -> bool:
    """Return whether `hidden_states` implements this decoder."""
    layers = getattr(decoder, "layers", ())
    if not all(
        type(layer).__name__ in BUILDS
        and type(layer).__module__.startswith("transformers.")
        and type(layer.mlp.act_fn).__name__ in ("SiLU", "SiLUActivation")
        for layer in layers
    ):
        return False
    norms = [
        norm.weight
        for layer in layers
        for norm in (layer.input_layernorm, layer.post_attention_layernorm)
    ]
    return bool(norms) and all(
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and not weight.requires_grad
        for weight in (*norms, decoder.norm.weight)
    )


def hidden_states(
    decoder: Any, ids: Tensor, positions: Tensor, layout: Layout, wanted: Tensor
) -> Tensor:
    """Return the last hidden states (N, D) of the columns `wanted` (N,) of a packed stream.

    `ids` and `positions` are (1, T). After the last layer's attention only the columns `wanted` are
    computed.
    """
    h = decoder.embed_tokens(ids)
    cos, sin = (part[0].contiguous() for part in decoder.rotary_emb(h, position_ids=positions))
    h = h[0]
    delta = torch.zeros_like(h)
    for number, layer in enumerate(decoder.layers):
        last = number == len(decoder.layers) - 1
        inputs = (layer, number, h, delta, cos, sin, layout, wanted if last else None)
        if layer.gradient_checkpointing:  # trainer/training/activation_checkpointing.py
            h, delta = checkpoint(_layer, *inputs, use_reentrant=False)
        else:
            h, delta = _layer(*inputs)
    return _normed(h, delta, decoder.norm)[1]


def _layer(
    layer: Any,
    number: int,
    h: Tensor,
    delta: Tensor,
    cos: Tensor,
    sin: Tensor,
    layout: Layout,
    wanted: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the residual stream so far, and what this layer's MLP adds to it, both (T, D); `delta`
    is what the layer before adds. Of all columns, or of those `wanted`."""
    attention, mlp = layer.self_attn, layer.mlp
    h, x = _normed(h, delta, layer.input_layernorm)
    q, k, v = (
        part.view(len(x), -1, attention.head_dim)
        for part in together((attention.q_proj, attention.k_proj, attention.v_proj), x)
    )
    rules = Rules(attention.scaling, _window(attention), None)
    attended = Attend.apply(q, k, v, cos, sin, layout, number, rules).flatten(1)
    if wanted is not None:
        attended, h = attended[wanted], h[wanted]
    h, x = _normed(h, attention.o_proj(attended), layer.post_attention_layernorm)
    return h, mlp.down_proj(_Gate.apply(*together((mlp.gate_proj, mlp.up_proj), x)))


def _window(attention: Any) -> int | None:
    """Return the number of positions that the layer sees, None for all; Mistral's layers have it in
    their configuration."""
    own = attention if hasattr(attention, "sliding_window") else attention.config
    found: int | None = getattr(own, "sliding_window", None)
    return found


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
