"""Kahneman-Tversky optimisation (KTO), and KTO on clamped tokens.

`kto_clamped` is `kto` with rewards, and mismatched rewards, of `summed_rewards(clamp=TOKEN_CLAMP)`.
It takes the clamp of Humanline (Liu et al. 2025, arXiv 2509.24207) but not its reference: there the
reference is replaced by the policy every k steps (k = 1 in the authors' setting), so the clamp
limits how far a token moves between two such steps. Here the reference stays the base model, so the
clamp limits how far a token moves from the base at all, and a token outside it gets no gradient of
its own that would bring it back.
"""

import torch
from torch import Tensor

from trainer.losses.base import Lambdas, class_lambda, signed_gain

# log ε_P and log ε_R of Humanline, in nats per token: its authors' defaults.
TOKEN_CLAMP = (-1.0, 1.5)


def kl_reference_point(mismatched: Tensor) -> tuple[Tensor, Tensor]:
    """Return z₀ and its value before the clamp, both 0-dimensional, in nats, without gradient.

    `mismatched`, shape (B,), holds r(xᵢ, yⱼ), j ≠ i, of every mismatched pair of the step. Raises
    ValueError for an empty step. Ethayarajh et al. 2024, Section 4.1.
    """
    if mismatched.numel() == 0:
        raise ValueError("z₀ needs at least one mismatched pair")
    unclamped = mismatched.detach().mean()
    return unclamped.clamp(min=0), unclamped


def kto(rewards: Tensor, labels: Tensor, z0: Tensor, beta: float, lambdas: Lambdas) -> Tensor:
    """Return the per-example KTO loss, shape (B,), each in [0, λ].

    `rewards` (B,) in nats, `labels` (B,) bool, `z0` 0-dimensional. Desirable:
    λ_D(1 − σ(β(r − z₀))), undesirable: λ_U(1 − σ(β(z₀ − r))). Ethayarajh et al. 2024 (arXiv
    2402.01306), Eq. 7 with λ − v for each class.
    """
    gain = signed_gain(rewards, labels, z0, beta)
    # 1 − σ(a) written as σ(−a): the difference would lose all digits where σ(a) is close to 1.
    return class_lambda(labels, rewards, lambdas) * torch.sigmoid(-gain)
