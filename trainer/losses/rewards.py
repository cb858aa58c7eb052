"""Rewards of examples from the log-ratios of their tokens."""

from torch import Tensor

from trainer.losses.base import Clamp


def summed_rewards(
    log_ratios: Tensor, owners: Tensor, *, examples: int, clamp: Clamp | None = None
) -> Tensor:
    """Return r of each example, shape (B,), from the log-ratios of all their tokens.

    `log_ratios` (N,) is log π − log π₀ of each completion token in nats, `owners` (N,) the index
    of the token's example in [0, B). With `clamp` each token's log-ratio is clamped before the sum,
    and a token outside the clamp gets no gradient, in either direction: clamp(x)' is 0 there and 1
    inside, bounds included.
    """
    clamped = log_ratios if clamp is None else log_ratios.clamp(*clamp)
    return clamped.new_zeros(examples).index_add(0, owners, clamped)
