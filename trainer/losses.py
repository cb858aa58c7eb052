"""Losses on sequence log-probabilities: pure tensor functions, one a loss, registered by name.

A reward is r(x, y) = log π(y|x) − log π₀(y|x) in nats, summed over completion tokens and without
β; a label is true for desirable. `loss_named` says what a loss needs besides: its anchor, its
clamp, and whether it looks at examples, at pairs or at likelihoods.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.errors import Refused

# Eq. 8 asks for λ_D·n_D / (λ_U·n_U) in [1, 4/3].
RATIO_LOW = 1.0
RATIO_HIGH = 4 / 3
# A weight beyond this lets a handful of examples steer the whole step; better to ask for votes.
MAX_LAMBDA = 20.0
# log ε_P and log ε_R of the humanline clamp, in nats a token: its authors' defaults.
HUMANLINE_CLAMP = (-1.0, 1.5)
# Share of BCO's δ that a step leaves in place: a memory of about ten steps, in runs of 15 to 100.
ANCHOR_DECAY = 0.9

Clamp = tuple[float, float]


@dataclass(frozen=True)
class Lambdas:
    """Class weights. `bounded` says that the rule asked for more than MAX_LAMBDA."""

    desirable: float
    undesirable: float
    bounded: bool = False


@dataclass(frozen=True)
class ExampleLoss:
    """Judges each example by its reward: `function(rewards, labels, anchor, beta, lambdas)`.

    `anchor` says what the third argument is: "z0" `kl_reference_point` of the step's mismatched
    pairs, "mean" the value of `update_anchor` before the step, "none" a zero that is ignored.
    `clamp` belongs to `summed_rewards`, of the examples and of the mismatched pairs.
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
    """Judges an up against a down of its prompt: `function(rewards_up, rewards_down, beta)`."""

    name: str
    function: Callable[[Tensor, Tensor, float], Tensor]
    unit: ClassVar[Literal["pair"]] = "pair"
    anchor: ClassVar[Literal["none"]] = "none"
    clamp: ClassVar[Clamp | None] = None
    reference: ClassVar[bool] = True
    ups_only: ClassVar[bool] = False


@dataclass(frozen=True)
class LikelihoodLoss:
    """Raises the likelihood of the ups, no reference needed: `function(logprobs, tokens)`."""

    name: str
    function: Callable[[Tensor, Tensor], Tensor]
    unit: ClassVar[Literal["example"]] = "example"
    anchor: ClassVar[Literal["none"]] = "none"
    clamp: ClassVar[Clamp | None] = None
    reference: ClassVar[bool] = False
    ups_only: ClassVar[bool] = True


Loss = ExampleLoss | PairLoss | LikelihoodLoss


def summed_rewards(
    log_ratios: Tensor, owners: Tensor, *, examples: int, clamp: Clamp | None = None
) -> Tensor:
    """r of each example, shape (B,), from the log-ratios of all their tokens.

    `log_ratios` (N,) is log π − log π₀ of each completion token in nats, `owners` (N,) the index
    of the token's example in [0, B). With `clamp` each token's log-ratio is held in it before the
    sum, and a token outside of it gets no gradient, in either direction: clamp(x)' is 0 there and
    1 inside, bounds included, as in the authors' code. Liu et al. 2025 (arXiv 2509.24207).

    There the reference follows the policy, step by step; here it stays the base model, so the
    clamp is a fence around the base: no gradient of its own brings back a token that has left it.
    """
    held = log_ratios if clamp is None else log_ratios.clamp(*clamp)
    return held.new_zeros(examples).index_add(0, owners, held)


def kl_reference_point(mismatched: Tensor) -> tuple[Tensor, Tensor]:
    """z₀ and its value before the clamp, both 0-dimensional, in nats, without gradient.

    `mismatched`, shape (B,), holds r(xᵢ, yⱼ), j ≠ i, of every mismatched pair of the step. Raises
    ValueError for an empty step. Ethayarajh et al. 2024, Section 4.1.
    """
    if mismatched.numel() == 0:
        raise ValueError("z₀ needs at least one mismatched pair")
    unclamped = mismatched.detach().mean()
    return unclamped.clamp(min=0), unclamped


def update_anchor(previous: float | None, rewards: Tensor, labels: Tensor) -> float:
    """BCO's δ after a step, in nats, from the step's rewards (B,) and labels (B,), no gradient.

    `previous` is δ before the step, None at the start: 0, where policy and reference are equal.
    δ is an exponential moving average of the midpoint between the mean reward of the ups and that
    of the downs; call it once an optimiser step, with the rewards of every device and after the
    step's loss, so that all micro-batches see one δ. A step of one class knows half of the
    midpoint and moves δ half as far. Raises ValueError for an empty step.

    Jung et al. 2024 (arXiv 2404.04656), reward shift: δ = ½(E[r | up] + E[r | down]), which
    minimises the gap to DPO's loss, as a moving average; their r includes β, so their δ is ours
    times β. TRL's BCO, in its experimental part until it was dropped, takes the plain mean of all
    rewards ever seen, the present ones included: it follows the larger class, never forgets the
    start, and differs between the micro-batches of one step.
    """
    before = 0.0 if previous is None else previous
    means = [
        rewards.detach()[members].mean().item() for members in (labels, ~labels) if members.any()
    ]
    if not means:
        raise ValueError("δ needs at least one reward")
    rate = (1 - ANCHOR_DECAY) * len(means) / 2
    return before + rate * (sum(means) / len(means) - before)


def kto(rewards: Tensor, labels: Tensor, z0: Tensor, beta: float, lambdas: Lambdas) -> Tensor:
    """Per-example KTO loss, shape (B,), each in [0, λ].

    `rewards` (B,) in nats, `labels` (B,) bool, `z0` 0-dimensional. Desirable:
    λ_D(1 − σ(β(r − z₀))), undesirable: λ_U(1 − σ(β(z₀ − r))). Ethayarajh et al. 2024 (arXiv
    2402.01306), Eq. 7 with λ − v for each class. With rewards, and mismatched rewards, of
    `summed_rewards(clamp=HUMANLINE_CLAMP)` it is `kto_humanline`: Liu et al. 2025 (arXiv
    2509.24207).
    """
    # 1 − σ(a) written as σ(−a): the difference would lose all digits where σ(a) is close to 1.
    return _weights(labels, rewards, lambdas) * torch.sigmoid(-_gain(rewards, labels, z0, beta))


def apo_zero_unpaired(
    rewards: Tensor, labels: Tensor, anchor: Tensor, beta: float, lambdas: Lambdas
) -> Tensor:
    """Per-example APO-zero loss, shape (B,), each in [0, λ]; `anchor` is ignored.

    Desirable: λ_D(1 − σ(βr)), undesirable: λ_U·σ(βr): the likelihood of ups rises and that of
    downs falls from where the reference has them, so it fits ups that are better than what the
    model says by itself. D'Oosterlinck et al. 2024 (arXiv 2408.06266), Eq. 7, its two terms on
    examples that are not paired, as TRL has it.
    """
    gain = _gain(rewards, labels, torch.zeros_like(anchor), beta)
    return _weights(labels, rewards, lambdas) * torch.sigmoid(-gain)


def bco(rewards: Tensor, labels: Tensor, delta: Tensor, beta: float, lambdas: Lambdas) -> Tensor:
    """Per-example BCO loss, shape (B,): cross-entropy of a classifier of ups with logit β(r − δ).

    Desirable: −λ_D·log σ(β(r − δ)), undesirable: −λ_U·log σ(−β(r − δ)), `delta` 0-dimensional in
    nats from `update_anchor`. For a pair and any δ their sum bounds DPO's loss from above. Jung et
    al. 2024 (arXiv 2404.04656), without their weighting by prompt densities; λ is ours.
    """
    return -_weights(labels, rewards, lambdas) * F.logsigmoid(_gain(rewards, labels, delta, beta))


def sft(logprobs: Tensor, tokens: Tensor) -> Tensor:
    """Per-example mean negative log-probability a token, in nats, shape (B,).

    `logprobs` (B,) is log π(y|x) summed over completion tokens, `tokens` (B,) their number, EOS
    included. For desirable examples alone: it does not know what a down is. Ouyang et al. 2022
    (arXiv 2203.02155), first step.
    """
    return -logprobs / tokens


def dpo(rewards_up: Tensor, rewards_down: Tensor, beta: float) -> Tensor:
    """Per-pair DPO loss, shape (P,): −log σ(β(r_up − r_down)), rewards (P,) in nats.

    Both completions of a pair answer the same prompt. Rafailov et al. 2023 (arXiv 2305.18290),
    Eq. 7.
    """
    return -F.logsigmoid(beta * (rewards_up - rewards_down))


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        ExampleLoss("kto", kto, anchor="z0"),
        ExampleLoss("kto_humanline", kto, anchor="z0", clamp=HUMANLINE_CLAMP),
        ExampleLoss("apo_zero_unpaired", apo_zero_unpaired),
        ExampleLoss("bco", bco, anchor="mean"),
        LikelihoodLoss("sft", sft),
        PairLoss("dpo", dpo),
    )
}


def loss_named(name: str) -> Loss:
    """The registered loss. Raises Refused with the names that exist."""
    if name not in LOSSES:
        raise Refused(f"loss must be one of {', '.join(LOSSES)}, not {name!r}")
    return LOSSES[name]


def class_weights(
    loss: Loss,
    desirable: int,
    undesirable: int,
    *,
    given_d: float | None = None,
    given_u: float | None = None,
) -> Lambdas:
    """λ by the rule for a loss that weighs its classes; 1 and 1 for the others, whatever is given:
    in pairs the classes are equal in number, and `sft` has one."""
    if not isinstance(loss, ExampleLoss):
        return Lambdas(1.0, 1.0)
    return lambdas(desirable, undesirable, given_d=given_d, given_u=given_u)


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
            f"λ needs both classes, but there are {desirable} desirable and {undesirable} "
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


def _gain(rewards: Tensor, labels: Tensor, anchor: Tensor, beta: float) -> Tensor:
    """β(r − anchor) of an up, its negative of a down: how far an example is on its good side."""
    distance = beta * (rewards - anchor)
    return torch.where(labels, distance, -distance)


def _weights(labels: Tensor, rewards: Tensor, lambdas: Lambdas) -> Tensor:
    return torch.where(
        labels, rewards.new_tensor(lambdas.desirable), rewards.new_tensor(lambdas.undesirable)
    )
