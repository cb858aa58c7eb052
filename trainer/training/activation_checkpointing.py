"""Trading time for memory: layers that forget their activations and compute them again."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer.forward.head import causal_lm_of


@contextmanager
def forgetful_layers(model: Any) -> Iterator[None]:
    """Inside, every decoder layer keeps its input alone; its activations are computed again, to
    the same values, in the backward pass (Chen et al. 2016, arXiv 1604.06174), not reentrant.

    transformers does so for layers in training mode only. The mode is set for the layers
    themselves and not for what is in them: the base's dropout stays off.
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
