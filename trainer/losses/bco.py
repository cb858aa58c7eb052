"""Binary classifier optimisation (BCO)."""

from torch import Tensor
from torch.nn import functional as F

from trainer.losses.base import Lambdas, class_lambda, signed_gain

# Share of δ that a step leaves in place: a memory of about ten steps, in runs of 15 to 100.
ANCHOR_DECAY = 0.9


def update_anchor(previous: float | None, rewards: Tensor, labels: Tensor) -> float:
    """Return BCO's δ after a step, in nats, without gradient.

    `rewards` (B,) and `labels` (B,) are the step's; `previous` is δ before the step, None at the
    start: 0, where policy and reference are equal. δ is an exponential moving average of the
    midpoint between the mean reward of the ups and that of the downs; call it once an optimiser
    step, with the rewards of every device and after the step's loss, so that all micro-batches see
    one δ. A step of one class knows half of the midpoint and moves δ half as far. Raises ValueError
    for an empty step.

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


def bco(rewards: Tensor, labels: Tensor, delta: Tensor, beta: float, lambdas: Lambdas) -> Tensor:
    """Return the per-example BCO loss, shape (B,).

    It is the cross-entropy of a classifier of ups with logit β(r − δ). Desirable:
    −λ_D·log σ(β(r − δ)), undesirable: −λ_U·log σ(−β(r − δ)), `delta` 0-dimensional in nats from
    `update_anchor`. For a pair and any δ their sum bounds DPO's loss from above. Jung et al. 2024
    (arXiv 2404.04656), without their weighting by prompt densities; λ is ours.
    """
    gain = signed_gain(rewards, labels, delta, beta)
    return -class_lambda(labels, rewards, lambdas) * F.logsigmoid(gain)
