"""The learning rate and the β of each step."""

import math

from trainer.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """Return the rate of a step (counted from 1): linear warm-up, then as `lr_schedule` says."""
    warmup = math.ceil(config.warmup_ratio * total)
    if step <= warmup:
        return config.learning_rate * step / warmup
    left = (total - step + 1) / (total - warmup + 1)
    factor = {
        "constant": 1.0,
        "linear": left,
        "cosine": 0.5 * (1 + math.cos(math.pi * (1 - left))),
    }[config.lr_schedule]
    return config.learning_rate * factor


def beta_at(config: TrainConfig, step: int, total: int) -> float:
    """Return β of a step (counted from 1): `config.beta` throughout, or with "linear_warmup" a
    straight rise to it over the steps in which the learning rate rises."""
    warmup = math.ceil(config.warmup_ratio * total)
    if config.beta_schedule == "constant" or step >= warmup:
        return config.beta
    return config.beta * step / warmup
