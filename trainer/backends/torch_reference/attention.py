"""Attention over a packed forest through scaled_dot_product_attention, segment by segment."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trainer.backends.base import Layout, Rules, Segment, is_missing_kernel

_T = TypeVar("_T")


def forest_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, layer: int, rules: Rules
) -> Tensor:
    """Return attention (T, H, D) from queries (H, T, D), keys and values (G, T, D)."""
    stored = None if layout.stored is None else layout.stored.layers[layer]
    if layout.keep is not None:
        layout.keep.layers[layer] = (key.detach(), value.detach())
    return segment_attention(query, key, value, layout.forest.segments, stored, rules)


def segment_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Sequence[Segment],
    stored: tuple[Tensor, Tensor] | None,
    rules: Rules,
) -> Tensor:
    """(H, T, D), (G, T, D) twice → (T, H, D) by the kernels of the device, gradients included."""
    # loads torch's compiler, 2 s: processes that never come here do without
    from torch.nn.attention.bias import causal_lower_right

    sizes = [segment.span.length for segment in segments]
    columns = {segment.span: index for index, segment in enumerate(segments)}
    queries = query.split(sizes, dim=1)
    keys, values = key.split(sizes, dim=1), value.split(sizes, dim=1)
    results = []
    for index, segment in enumerate(segments):
        above = [columns[span] for span in segment.above]
        old = [] if stored is None else [stored[0][:, s.start : s.stop] for s in segment.stored]
        old_values = (
            [] if stored is None else [stored[1][:, s.start : s.stop] for s in segment.stored]
        )
        k = torch.cat([*old, *(keys[i] for i in above), keys[index]], dim=1)
        v = torch.cat([*old_values, *(values[i] for i in above), values[index]], dim=1)
        q, hidden = queries[index], _hidden(segment, rules, query.device)
        if rules.softcap is None and rules.sinks is None:
            mask = None if hidden is None else ~hidden
            if mask is None and sizes[index] > 1:
                mask = causal_lower_right(sizes[index], k.shape[1])
            out = fused(_sdpa, q[None], k[None], v[None], mask, rules.scale)[0]
        else:
            groups = (k.shape[0], -1, *q.shape[1:])
            scores = q.view(groups) @ k[:, None].transpose(-1, -2) * rules.scale
            if rules.softcap is not None:
                scores = rules.softcap * torch.tanh(scores / rules.softcap)
            share = _shares(_masked(scores, segment, rules), rules.sinks).to(q.dtype)
            out = (share @ v[:, None]).reshape(q.shape)
        results.append(out)
    return torch.cat(results, dim=1).transpose(0, 1)


def _shares(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Return the softmax of scores (G, H/G, t, t') in fp32, without the share that sinks take."""
    if sinks is None:
        return scores.softmax(-1, dtype=torch.float32)
    taken = sinks.view(*scores.shape[:2], 1, 1).expand(*scores.shape[:3], 1)
    return torch.cat([scores, taken], dim=-1).softmax(-1, dtype=torch.float32)[..., :-1]


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Any, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)


class _Fused:
    """Whether this process uses the device's fused attention kernels, and why not."""

    def __init__(self) -> None:
        self.given_up = False
        self.messages: list[str] = []

    def give_up(self, error: BaseException) -> bool:
        """Compute attention by its formula from now on; return False where that is so already."""
        if self.given_up:
            return False
        self.given_up = True
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        message = (
            "attention is computed by its formula, which is slower and takes more memory: this "
            f"device has no kernel for it ({first})"
        )
        self.messages.append(message)
        logging.getLogger(__name__).warning(message)
        return True


FUSED = _Fused()


def fused(attend: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """Return `attend(…)`, which calls scaled_dot_product_attention, with a fused kernel of the
    device, or by the formula where it has none."""
    if not FUSED.given_up:
        try:
            return attend(*args, **kwargs)
        except RuntimeError as error:
            if not is_missing_kernel(error):
                raise
            FUSED.give_up(error)
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        return attend(*args, **kwargs)


# transformers' own attention (unpacked rows, generation, serving) takes the same way out
ALL_ATTENTION_FUNCTIONS.register("sdpa", partial(fused, sdpa_attention_forward))


def _masked(scores: Tensor, segment: Segment, rules: Rules) -> Tensor:
    """Fill scores (…, t, t') with −∞ where a query must not look, in place."""
    hidden = _hidden(segment, rules, scores.device)
    if hidden is None:
        size = segment.span.length
        ones = torch.ones(size, scores.shape[-1], dtype=torch.bool, device=scores.device)
        hidden = ones.triu_(1 + scores.shape[-1] - size)
    return scores.masked_fill_(hidden, float("-inf"))


def _hidden(segment: Segment, rules: Rules, device: torch.device) -> Tensor | None:
    """Where a query must not look, (t, t'), for a segment that a sliding window cuts; None where
    causality alone decides."""
    end = segment.position + segment.span.length
    if rules.window is None or end <= rules.window:
        return None
    queries = torch.arange(segment.position, end, device=device)[:, None]
    keys = torch.arange(end, device=device)[None, :]
    return (keys > queries) | (queries - keys >= rules.window)
