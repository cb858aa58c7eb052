"""Anchored preference optimisation (APO-zero) on examples that are not paired."""

import torch
from torch import Tensor

from trainer.losses.base import Lambdas, class_lambda, signed_gain


def apo_zero_unpaired(
    rewards: Tensor, labels: Tensor, anchor: Tensor, beta: float, lambdas: Lambdas
) -> Tensor:
    """Return the per-example APO-zero loss, shape (B,), each in [0, λ]; `anchor` is ignored.

    Desirable: λ_D(1 − σ(βr)), undesirable: λ_U·σ(βr): the likelihood of ups rises and that of
    downs falls, starting from the reference, so it fits ups that are better than the reference's
    own answers. D'Oosterlinck et al. 2024 (arXiv 2408.06266), Eq. 7, its two terms on
    examples that are not paired, as TRL has it.
    """
    gain = signed_gain(rewards, labels, torch.zeros_like(anchor), beta)
    return class_lambda(labels, rewards, lambdas) * torch.sigmoid(-gain)
