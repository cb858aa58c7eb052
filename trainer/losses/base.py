"""What a loss is: its function, and what it needs besides.

A reward is r(x, y) = log π(y|x) − log π₀(y|x) in nats, summed over completion tokens and without
β; a label is true for desirable.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

Clamp = tuple[float, float]


@dataclass(frozen=True)
class Lambdas:
    """Class weights λ. `bounded`: the rule of class_weights.py asked for more than MAX_LAMBDA."""

    desirable: float
    undesirable: float
    bounded: bool = False


@dataclass(frozen=True)
class ExampleLoss:
    """A loss of each example's reward: `function(rewards, labels, anchor, beta, lambdas)`.

    `anchor` names the third argument: "z0" `kl_reference_point` of the step's mismatched
    pairs, "mean" the value of `update_anchor` before the step, "none" a zero that is ignored.
    `clamp` is passed to `summed_rewards`, for the examples and for the mismatched pairs.
    """

    name: str
    function: Callable[[Tensor, Tensor, Tensor, float, Lambdas], Tensor]
    anchor: Literal["z0", "mean", "none"] = "none"
    clamp: Clamp | None = None
    unit: ClassVar[Literal["example"]] = "example"
    reference: ClassVar[bool] = True
    ups_only: ClassVar[bool] = False


@dataclass(frozen=True)
class PairLoss:
    """A loss of a desirable and an undesirable answer to one prompt:
    `function(rewards_up, rewards_down, beta)`."""

    name: str
    function: Callable[[Tensor, Tensor, float], Tensor]
    unit: ClassVar[Literal["pair"]] = "pair"
    anchor: ClassVar[Literal["none"]] = "none"
    clamp: ClassVar[Clamp | None] = None
    reference: ClassVar[bool] = True
    ups_only: ClassVar[bool] = False


@dataclass(frozen=True)
class LikelihoodLoss:
    """A loss of the likelihood of desirable examples, without a reference:
    `function(logprobs, tokens)`."""

    name: str
    function: Callable[[Tensor, Tensor], Tensor]
    unit: ClassVar[Literal["example"]] = "example"
    anchor: ClassVar[Literal["none"]] = "none"
    clamp: ClassVar[Clamp | None] = None
    reference: ClassVar[bool] = False
    ups_only: ClassVar[bool] = True


Loss = ExampleLoss | PairLoss | LikelihoodLoss


def signed_gain(rewards: Tensor, labels: Tensor, anchor: Tensor, beta: float) -> Tensor:
    """Return β(r − anchor) of a desirable example and its negative of an undesirable one, (B,)."""
    distance = beta * (rewards - anchor)
    return torch.where(labels, distance, -distance)


def class_lambda(labels: Tensor, rewards: Tensor, lambdas: Lambdas) -> Tensor:
    """Return λ of each example's class, (B,), in the type of `rewards`."""
    return torch.where(
        labels,
        # written on the device; new_tensor would copy, and wait for it
        rewards.new_full((), lambdas.desirable),
        rewards.new_full((), lambdas.undesirable),
    )
