"""The model card: what an adapter is, in words, beside its weights."""

from trainer.config import TrainConfig
from trainer.losses import Lambdas


def model_card(
    config: TrainConfig, *, desirable: int, undesirable: int, lambdas: Lambdas, steps: int
) -> str:
    """README.md of an adapter directory, with the front matter that model hubs read."""
    return f"""---
base_model: {config.base_model}
library_name: peft
tags: [lora, kto]
---

# {config.adapter_name}

A LoRA adapter (rank {config.lora_r}) for `{config.base_model}`, trained with the
{config.loss.upper()} loss on {desirable + undesirable} answers that people judged:
{desirable} up, {undesirable} down.

| setting | value |
|---|---|
| steps | {steps} of {config.batch_size} examples |
| learning rate | {config.learning_rate:g}, {config.lr_schedule}, warm-up {config.warmup_ratio:g} |
| beta | {config.beta:g} |
| lambda up, down | {lambdas.desirable:.3g}, {lambdas.undesirable:.3g} |
| seed | {config.seed} |

It follows the verdicts of the people who voted and inherits the limits of its base model. Whether
it is better than the base is for a comparison on held-out prompts to say; training alone does not
show it.
"""
