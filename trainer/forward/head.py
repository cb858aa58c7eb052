"""From hidden states to log-probabilities of given tokens, without logits that outlive a chunk."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainer.backends import backend_for

#: Positions whose logits exist at one time: large enough for a fast matrix product, small enough
#: (25 MB in bf16) that the C library hands the same memory out again, page tables and all.
CHUNK = 256

LogitsOf = Callable[[Tensor], Tensor]


def token_logprobs(logits_of: LogitsOf, hidden: Tensor, targets: Tensor) -> Tensor:
    """log-probability of each target, shape (N,), fp32, from hidden states (N, D).

    Worked through in chunks; with gradients enabled each chunk's gradient with respect to its
    hidden states is taken at once (a target's log-probability depends on its own position only,
    and the head is frozen), so that no logits outlive their chunk.
    """
    if torch.is_grad_enabled() and hidden.requires_grad:
        result: Tensor = _TokenLogprobs.apply(hidden, targets, logits_of)
        return result
    backend = backend_for(hidden.device)
    found = hidden.new_empty(len(targets), dtype=torch.float32)
    for start in range(0, len(targets), CHUNK):
        chunk = slice(start, start + CHUNK)
        logits = logits_of(hidden[chunk])
        backend.target_logprobs(logits, targets[chunk], found[chunk], slopes=False)
    return found


def head(model: Any) -> LogitsOf:
    """Return a function of hidden states (N, D) to logits (N, V), with the scaling that some
    architectures put after the head (Cohere, Granite, Gemma 2)."""
    causal_lm = causal_lm_of(model)
    config = causal_lm.config
    project = causal_lm.get_output_embeddings()
    factor = float(getattr(config, "logit_scale", None) or 1.0)
    factor /= float(getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)

    def logits_of(hidden: Tensor) -> Tensor:
        logits: Tensor = project(hidden)
        if factor != 1.0:
            logits = logits * factor
        return logits if cap is None else cap * torch.tanh(logits / cap)

    return logits_of


def causal_lm_of(model: Any) -> Any:
    """Return the causal LM inside a wrapper such as PEFT's, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class _TokenLogprobs(torch.autograd.Function):
    """token_logprobs with its gradient computed in the forward pass, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, logits_of: LogitsOf) -> Tensor:
        found = hidden.new_empty(len(targets), dtype=torch.float32)
        backend, gradient = backend_for(hidden.device), torch.empty_like(hidden)
        for start in range(0, len(targets), CHUNK):
            chunk = slice(start, start + CHUNK)
            with torch.enable_grad():
                leaf = hidden[chunk].detach().requires_grad_()
                logits = logits_of(leaf)
            slopes = logits.detach()
            backend.target_logprobs(slopes, targets[chunk], found[chunk], slopes=True)
            (gradient[chunk],) = torch.autograd.grad(logits, leaf, slopes)
        ctx.save_for_backward(gradient)
        return found

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].unsqueeze(1).to(gradient.dtype), None, None
