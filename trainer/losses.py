"""Losses on sequence log-probabilities: pure tensor functions, one a loss, registered by name."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.errors import Refused

# Eq. 8 asks for λ_D·n_D / (λ_U·n_U) in [1, 4/3].
RATIO_LOW = 1.0
RATIO_HIGH = 4 / 3
# A weight beyond this lets a handful of examples steer the whole step; better to ask for votes.
MAX_LAMBDA = 20.0


@dataclass(frozen=True)
class Lambdas:
    """Class weights. `bounded` says that the rule asked for more than MAX_LAMBDA."""

    desirable: float
    undesirable: float
    bounded: bool = False


Loss = Callable[[Tensor, Tensor, Tensor, float, Lambdas], Tensor]


def kl_reference_point(mismatched: Tensor) -> tuple[Tensor, Tensor]:
    """z₀ and its value before the clamp, both 0-dimensional, in nats, without gradient.

    `mismatched`, shape (B,), holds r(xᵢ, yⱼ), j ≠ i, of every mismatched pair of the step. Raises
    ValueError for an empty step. Ethayarajh et al. 2024, Section 4.1.
    """
    if mismatched.numel() == 0:
        raise ValueError("z₀ needs at least one mismatched pair")
    unclamped = mismatched.detach().mean()
    return unclamped.clamp(min=0), unclamped


def kto(rewards: Tensor, labels: Tensor, z0: Tensor, beta: float, lambdas: Lambdas) -> Tensor:
    """Per-example KTO loss, shape (B,).

    `rewards` (B,) is r(x, y) = log π(y|x) − log π₀(y|x) in nats, summed over completion tokens;
    `labels` (B,) is bool, true for desirable; `z0` 0-dimensional. Desirable: λ_D(1 − σ(β(r − z₀))),
    undesirable: λ_U(1 − σ(β(z₀ − r))). Ethayarajh et al. 2024, Eq. 7 with λ − v for each class.
    """
    sign = torch.where(labels, rewards.new_tensor(1.0), rewards.new_tensor(-1.0))
    weight = torch.where(
        labels, rewards.new_tensor(lambdas.desirable), rewards.new_tensor(lambdas.undesirable)
    )
    # 1 − σ(a) written as σ(−a): the difference would lose all digits where σ(a) is close to 1.
    return weight * torch.sigmoid(-beta * sign * (rewards - z0))


LOSSES: dict[str, Loss] = {"kto": kto}


def loss_named(name: str) -> Loss:
    """The registered loss. Raises Refused with the names that exist."""
    if name not in LOSSES:
        raise Refused(f"loss must be one of {', '.join(LOSSES)}, not {name!r}")
    return LOSSES[name]


def lambdas(
    desirable: int,
    undesirable: int,
    *,
    given_d: float | None = None,
    given_u: float | None = None,
) -> Lambdas:
    """Class weights from the counts; a given weight is taken as it is.

    The rule raises the weight of the class that is short until λ_D·n_D / (λ_U·n_U) lies in
    [1, 4/3]; the other weight is 1, and no weight exceeds MAX_LAMBDA. With one weight given, the
    other one follows from the same interval. Raises Refused when a class is empty. Ethayarajh et
    al. 2024, Eq. 8.
    """
    if desirable < 1 or undesirable < 1:
        raise Refused(
            f"KTO needs both classes, but there are {desirable} desirable and {undesirable} "
            "undesirable examples: collect votes of the other kind"
        )
    if given_d is not None and given_u is not None:
        return Lambdas(given_d, given_u)
    if given_d is not None:
        # λ_U may be anything in [λ_D·n_D / (4/3·n_U), λ_D·n_D / n_U]: the value nearest to 1.
        most = given_d * desirable / (RATIO_LOW * undesirable)
        least = given_d * desirable / (RATIO_HIGH * undesirable)
        wanted = min(max(1.0, least), most)
        return Lambdas(given_d, min(wanted, MAX_LAMBDA), bounded=wanted > MAX_LAMBDA)
    fixed = 1.0 if given_u is None else given_u
    least = RATIO_LOW * fixed * undesirable / desirable
    most = RATIO_HIGH * fixed * undesirable / desirable
    if given_u is None and most < 1.0:
        wanted = desirable / (RATIO_HIGH * undesirable)
        return Lambdas(1.0, min(wanted, MAX_LAMBDA), bounded=wanted > MAX_LAMBDA)
    wanted = min(max(1.0, least), most)
    return Lambdas(min(wanted, MAX_LAMBDA), fixed, bounded=wanted > MAX_LAMBDA)
