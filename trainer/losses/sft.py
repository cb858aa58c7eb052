"""Supervised fine-tuning on desirable examples."""

from torch import Tensor


def sft(logprobs: Tensor, tokens: Tensor) -> Tensor:
    """Return the per-example mean negative log-probability a token, in nats, shape (B,).

    `logprobs` (B,) is log π(y|x) summed over completion tokens, `tokens` (B,) their number, EOS
    included. For desirable examples only. Ouyang et al. 2022
    (arXiv 2203.02155), first step.
    """
    return -logprobs / tokens
