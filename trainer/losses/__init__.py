"""Losses on sequence log-probabilities: pure tensor functions, one module a loss.

`loss_named` returns a loss with what it needs besides: its anchor, its clamp, and whether it is
computed from examples, pairs or likelihoods.
"""

from trainer.losses.apo_zero import apo_zero_unpaired
from trainer.losses.base import Clamp, ExampleLoss, Lambdas, LikelihoodLoss, Loss, PairLoss
from trainer.losses.bco import ANCHOR_DECAY, bco, update_anchor
from trainer.losses.class_weights import MAX_LAMBDA, class_weights, lambdas, summed_weights
from trainer.losses.dpo import dpo
from trainer.losses.kto import TOKEN_CLAMP, kl_reference_point, kto
from trainer.losses.registry import LOSSES, loss_fault, loss_named
from trainer.losses.rewards import summed_rewards
from trainer.losses.sft import sft

__all__ = [
    "ANCHOR_DECAY",
    "LOSSES",
    "MAX_LAMBDA",
    "TOKEN_CLAMP",
    "Clamp",
    "ExampleLoss",
    "Lambdas",
    "LikelihoodLoss",
    "Loss",
    "PairLoss",
    "apo_zero_unpaired",
    "bco",
    "class_weights",
    "dpo",
    "kl_reference_point",
    "kto",
    "lambdas",
    "loss_fault",
    "loss_named",
    "sft",
    "summed_rewards",
    "summed_weights",
    "update_anchor",
]
