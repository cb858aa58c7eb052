"""Log-probabilities of given tokens from logits, in fp32."""

import torch
from torch import Tensor


def target_logprobs(logits: Tensor, targets: Tensor, found: Tensor, *, slopes: bool) -> None:
    """Write log p of the targets (N,) into `found` (N,) fp32, from logits (N, V).

    `slopes` replaces the logits by the derivative with respect to them, onehot(target) − softmax,
    from the same exponentials.
    """
    scores = logits.to(torch.float32, copy=True)
    scores -= scores.amax(-1, keepdim=True)
    picked = scores.gather(-1, targets[:, None])
    total = scores.exp_().sum(-1, keepdim=True)
    found.copy_((picked - total.log()).squeeze(-1))
    if slopes:
        logits.copy_(scores.div_(-total))
        logits[torch.arange(len(targets), device=logits.device), targets] += 1
