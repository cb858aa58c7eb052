"""Activation checkpointing: less memory, more computation."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer.forward.head import causal_lm_of


@contextmanager
def checkpointed_layers(model: Any) -> Iterator[None]:
    """Checkpoint every decoder layer inside the context.

    A layer keeps only its input; the backward pass computes its activations again, to the same
    values, not reentrant (Chen et al. 2016, arXiv 1604.06174). transformers does this only for
    layers in training mode. The mode is set for the layers but not for their children: the base's
    dropout stays off.
    """
    layers = [
        module
        for module in causal_lm_of(model).get_decoder().modules()
        if isinstance(module, GradientCheckpointingLayer)
    ]
    for layer in layers:
        layer.gradient_checkpointing = layer.training = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False
