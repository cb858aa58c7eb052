"""Attention over a packed forest (trainer/prefixes.py): each node sees itself and what is above.

Registered with transformers as one more attention implementation, so that every architecture
which takes its attention from that registry (Llama, Mistral, Mixtral, Qwen, Gemma, Phi, GPT-2 …)
runs on packed, shared rows without a line of its own; sliding windows and soft-capping arrive as
arguments of the layer that asks. Two ways to compute the same thing: explicit matrix products with
their own backward pass on the CPU, where they beat the fused kernels for rows of a few hundred
tokens, and scaled_dot_product_attention node by node elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trainer.prefixes import Forest, Node

NAME = "prospect_forest"
#: Queries and keys of a node are rounded up to a multiple of this on the CPU. For every new shape
#: of a bf16 product a kernel is compiled there (half a millisecond) and a thousand are kept: many
#: short rows of all lengths would have each layer compile all of them again.
_GRAIN = 16


@dataclass(frozen=True)
class KeysValues:
    """What later branches attend to: keys and values of every layer, each (G, T, D), detached."""

    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """How the stream that runs through the model now is to be attended: its forest, the keys and
    values of an earlier stream that its nodes refer to, and where to keep its own for later."""

    forest: Forest
    stored: KeysValues | None = None
    keep: KeysValues | None = None


@dataclass(frozen=True)
class _Rules:
    """What a layer asks of its attention: `window` counts visible positions, itself included."""

    scale: float
    window: int | None
    softcap: float | None


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
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query (1, H, T, D), key and value (1, G, T, D) with H a
    multiple of G → (1, T, H, D)."""
    rules = _Rules(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap)
    layer: int = module.layer_idx
    stored = None if layout.stored is None else layout.stored.layers[layer]
    if layout.keep is not None:
        layout.keep.layers[layer] = (key[0].detach(), value[0].detach())
    if query.device.type == "cpu":
        result: Tensor = _ForestAttention.apply(
            query[0], key[0], value[0], layout.forest.nodes, stored, rules
        )
    else:
        result = fused(query[0], key[0], value[0], layout.forest.nodes, stored, rules)
    return result.unsqueeze(0), None


ALL_ATTENTION_FUNCTIONS.register(NAME, forest_attention)


def fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    nodes: Sequence[Node],
    stored: tuple[Tensor, Tensor] | None,
    rules: _Rules,
) -> Tensor:
    """(H, T, D), (G, T, D) twice → (T, H, D) by the kernels of the device, gradients included."""
    sizes = [node.span.length for node in nodes]
    columns = {node.span: index for index, node in enumerate(nodes)}
    queries = query.split(sizes, dim=1)
    keys, values = key.split(sizes, dim=1), value.split(sizes, dim=1)
    results = []
    for index, node in enumerate(nodes):
        above = [columns[span] for span in node.above]
        old = [] if stored is None else [stored[0][:, s.start : s.stop] for s in node.stored]
        old_values = [] if stored is None else [stored[1][:, s.start : s.stop] for s in node.stored]
        k = torch.cat([*old, *(keys[i] for i in above), keys[index]], dim=1)
        v = torch.cat([*old_values, *(values[i] for i in above), values[index]], dim=1)
        q, hidden = queries[index], _hidden(node, rules, query.device)
        if rules.softcap is None:
            mask = None if hidden is None else ~hidden
            if mask is None and sizes[index] > 1:
                mask = _lower_right(sizes[index], k.shape[1], query.device)
            out = F.scaled_dot_product_attention(
                q[None], k[None], v[None], attn_mask=mask, scale=rules.scale, enable_gqa=True
            )[0]
        else:
            groups = (k.shape[0], -1, *q.shape[1:])
            scores = q.view(groups) @ k[:, None].transpose(-1, -2) * rules.scale
            scores = rules.softcap * torch.tanh(scores / rules.softcap)
            scores = _masked(scores, node, rules)
            share = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
            out = (share @ v[:, None]).reshape(q.shape)
        results.append(out)
    return torch.cat(results, dim=1).transpose(0, 1)


class _ForestAttention(torch.autograd.Function):
    """`fused` by plain matrix products; queries of one key head are stacked into one product."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        nodes: Sequence[Node],
        stored: tuple[Tensor, Tensor] | None,
        rules: _Rules,
    ) -> Tensor:
        heads, length, _ = query.shape
        groups = key.shape[0]
        out = query.new_empty(length, heads, value.shape[-1])
        shares, slopes = [], []
        for node in nodes:
            q = _stack(query, node, groups, rules.scale)
            k, v = _visible(key, value, node, stored)
            scores = torch.bmm(q, k.transpose(1, 2))
            if rules.softcap is not None:
                tanh = scores.div_(rules.softcap).tanh_()
                slopes.append(1 - tanh * tanh)
                scores = tanh * rules.softcap
            _masked(scores.view(groups, heads // groups, -1, k.shape[1]), node, rules)
            share = torch.softmax(scores, -1)
            part = torch.bmm(share, v).view(heads, -1, v.shape[-1])
            columns = slice(node.span.start, node.span.stop)
            out[columns] = part[:, : node.span.length].transpose(0, 1)
            shares.append(share)
        if any(ctx.needs_input_grad[:3]):
            ctx.save_for_backward(query, key, value)
            ctx.nodes, ctx.stored, ctx.rules = nodes, stored, rules
            ctx.shares, ctx.slopes = shares, slopes
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        rules, groups = ctx.rules, key.shape[0]
        gradient = upstream[0].transpose(0, 1)
        d_query = torch.empty_like(query)
        # Several nodes add to the keys above them: summed in fp32.
        d_key = torch.zeros(key.shape, device=key.device, dtype=torch.float32)
        d_value = torch.zeros(value.shape, device=key.device, dtype=torch.float32)
        for number, node in enumerate(ctx.nodes):
            share = ctx.shares[number]
            q = _stack(query, node, groups, rules.scale)
            k, v = _visible(key, value, node, ctx.stored)
            d_out = _stack(gradient, node, groups)
            d_share = torch.bmm(d_out, v.transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_share, share, -1, share.dtype)
            if rules.softcap is not None:
                d_scores.mul_(ctx.slopes[number])
            d_q = torch.bmm(d_scores, k).view(query.shape[0], -1, query.shape[-1])
            columns = slice(node.span.start, node.span.stop)
            torch.mul(d_q[:, : node.span.length], rules.scale, out=d_query[:, columns])
            _spread(d_key, torch.bmm(d_scores.transpose(1, 2), q), node)
            _spread(d_value, torch.bmm(share.transpose(1, 2), d_out), node)
        return d_query, d_key.to(key.dtype), d_value.to(value.dtype), None, None, None


def _rounded(size: int) -> int:
    return -(-size // _GRAIN) * _GRAIN


def _stack(heads: Tensor, node: Node, groups: int, scale: float = 1.0) -> Tensor:
    """(H, T, D) → a node's rows, scaled, of all heads that share a key head, (G, H/G · t, D), t
    rounded up with rows of zeros."""
    part = heads[:, node.span.start : node.span.stop]
    size = node.span.length
    stacked = heads.new_empty(part.shape[0], _rounded(size), part.shape[2])
    torch.mul(part, scale, out=stacked[:, :size])
    stacked[:, size:] = 0
    return stacked.view(groups, -1, part.shape[-1])


def _visible(
    key: Tensor, value: Tensor, node: Node, stored: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Keys and values that a node sees, in the order of positions, each (G, t', D), t' rounded up
    with zeros."""
    seen = node.position + node.span.length
    found = []
    for number, own in enumerate((key, value)):
        whole = own.new_empty(own.shape[0], _rounded(seen), own.shape[2])
        start = 0
        for span in node.stored:
            assert stored is not None  # noqa: S101 - whoever names stored columns has stored them
            whole[:, start : start + span.length] = stored[number][:, span.start : span.stop]
            start += span.length
        for span in (*node.above, node.span):
            whole[:, start : start + span.length] = own[:, span.start : span.stop]
            start += span.length
        whole[:, start:] = 0
        found.append(whole)
    return found[0], found[1]


def _spread(total: Tensor, gradient: Tensor, node: Node) -> None:
    """Add the gradient of what a node saw to the columns where it stands; what was stored by an
    earlier stream takes none."""
    start = sum(span.length for span in node.stored)
    for span in (*node.above, node.span):
        total[:, span.start : span.stop] += gradient[:, start : start + span.length]
        start += span.length


def _masked(scores: Tensor, node: Node, rules: _Rules) -> Tensor:
    """Scores (…, t, t'), both perhaps rounded up, with −∞ where a query must not look, in place."""
    size, seen = node.span.length, node.position + node.span.length
    if scores.shape[-1] > seen:
        scores[..., seen:] = float("-inf")
    own = scores[..., :size, :seen]
    hidden = _hidden(node, rules, scores.device)
    if hidden is not None:
        own.masked_fill_(hidden, float("-inf"))
    elif size > 1:  # adding −∞ takes a quarter of the time that filling it in takes
        own[..., seen - size :].add_(_future(size, scores))
    return scores


def _hidden(node: Node, rules: _Rules, device: torch.device) -> Tensor | None:
    """Where a query must not look, (t, t'), for a node that a sliding window cuts; None where
    causality alone decides."""
    end = node.position + node.span.length
    if rules.window is None or end <= rules.window:
        return None
    queries = torch.arange(node.position, end, device=device)[:, None]
    keys = torch.arange(end, device=device)[None, :]
    return (keys > queries) | (queries - keys >= rules.window)


_FUTURE: dict[tuple[torch.device, torch.dtype], Tensor] = {}


def _future(size: int, like: Tensor) -> Tensor:
    """−∞ above the diagonal, 0 elsewhere, (size, size): a view of one that grows."""
    known = _FUTURE.get((like.device, like.dtype))
    if known is None or len(known) < size:
        side = max(512, 1 << (size - 1).bit_length())
        known = torch.full((side, side), float("-inf"), dtype=like.dtype, device=like.device)
        known = _FUTURE[like.device, like.dtype] = known.triu_(1)
    return known[:size, :size]


def _lower_right(size: int, seen: int, device: torch.device) -> Any:
    """Causality for queries that are the last `size` of `seen` positions, in the form that lets
    the device choose its flash kernel."""
    from torch.nn.attention.bias import causal_lower_right

    return causal_lower_right(size, seen)
