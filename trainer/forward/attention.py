"""Attention over a packed forest (segments.py): each node sees itself and the nodes above it.

Registered with transformers as one more attention implementation, so that every architecture
which takes its attention from that registry (Llama, Mistral, Mixtral, Qwen, Gemma, Phi, GPT-2 …)
runs on packed, shared rows without a line of its own; sliding windows and soft-capping arrive as
arguments of the layer that asks. Two ways to compute the same thing: compiled code on the CPU
(trainer/backends/cpu/forest_attention.py), scaled_dot_product_attention node by node elsewhere.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trainer.backends.cpu.forest_attention import Attend, Layout, Rules
from trainer.forward.segments import Node

NAME = "prospect_forest"
#: Kinds of devices that trainer/backends/cpu/forest_attention.py computes on.
COMPILED_FOR = ("cpu",)


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
    rules = Rules(query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap)
    layer: int = module.layer_idx
    if query.device.type in COMPILED_FOR:
        turned = query.new_empty(0, 0)  # by the model itself
        heads = (states[0].transpose(0, 1) for states in (query, key, value))
        result: Tensor = Attend.apply(*heads, turned, turned, layout, layer, rules)
    else:
        stored = None if layout.stored is None else layout.stored.layers[layer]
        if layout.keep is not None:
            layout.keep.layers[layer] = (key[0].detach(), value[0].detach())
        result = node_by_node(query[0], key[0], value[0], layout.forest.nodes, stored, rules)
    return result.unsqueeze(0), None


ALL_ATTENTION_FUNCTIONS.register(NAME, forest_attention)


def node_by_node(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    nodes: Sequence[Node],
    stored: tuple[Tensor, Tensor] | None,
    rules: Rules,
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


def _masked(scores: Tensor, node: Node, rules: Rules) -> Tensor:
    """Scores (…, t, t') with −∞ where a query must not look, in place."""
    hidden = _hidden(node, rules, scores.device)
    if hidden is None:
        size = node.span.length
        ones = torch.ones(size, scores.shape[-1], dtype=torch.bool, device=scores.device)
        hidden = ones.triu_(1 + scores.shape[-1] - size)
    return scores.masked_fill_(hidden, float("-inf"))


def _hidden(node: Node, rules: Rules, device: torch.device) -> Tensor | None:
    """Where a query must not look, (t, t'), for a node that a sliding window cuts; None where
    causality alone decides."""
    end = node.position + node.span.length
    if rules.window is None or end <= rules.window:
        return None
    queries = torch.arange(node.position, end, device=device)[:, None]
    keys = torch.arange(end, device=device)[None, :]
    return (keys > queries) | (queries - keys >= rules.window)


def _lower_right(size: int, seen: int, device: torch.device) -> Any:
    """Causality for queries that are the last `size` of `seen` positions, in the form that lets
    the device choose its flash kernel."""
    from torch.nn.attention.bias import causal_lower_right

    return causal_lower_right(size, seen)
