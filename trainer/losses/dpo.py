"""Direct preference optimisation (DPO)."""

from torch import Tensor
from torch.nn import functional as F


def dpo(rewards_up: Tensor, rewards_down: Tensor, beta: float) -> Tensor:
    """Return the per-pair DPO loss, shape (P,): −log σ(β(r_up − r_down)), rewards (P,) in nats.

    Both completions of a pair answer the same prompt. Rafailov et al. 2023 (arXiv 2305.18290),
    Eq. 7.
    """
    return -F.logsigmoid(beta * (rewards_up - rewards_down))
