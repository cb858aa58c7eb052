"""Load the base model in the precision that decodes fastest."""

from dataclasses import replace

import torch
from transformers import AutoConfig

from trainer.backends import backend_for
from trainer.errors import TrainerError
from trainer.models.loading import LoadedBase, load_base, resolve_device
from trainer.precision import automatic_precision


def load_served(
    name: str, *, dtype: str = "auto", device: str = "auto", quantisation: str | None = None
) -> LoadedBase:
    """Load a base model for `Batch`: as `load_base`, but `auto` suits decoding.

    Decoding reads all weights for each token, so it is bound by memory. Where the compiled decoder
    runs the model, weights stay in bfloat16 even on a CPU without bfloat16 units: they are widened
    to float32 in registers, and half as many bytes are read. Everything else takes the type that
    the device computes in, and so does a quantised base, which the compiled decoder does not run.
    Raises what `load_base` raises.
    """
    where = resolve_device(device)
    if dtype != "auto" or where.type != "cpu" or quantisation is not None:
        return load_base(name, dtype=dtype, device=device, quantisation=quantisation)
    precision = automatic_precision(where)
    if precision.dtype != torch.float32 or not _may_be_served(name, where):
        return load_base(name, device="cpu")
    base = load_base(name, dtype="bfloat16", device="cpu")
    if not backend_for(where).can_serve(base.model):  # an uncommon variant of the architecture
        return load_base(name, device="cpu")
    return replace(base, precision=f"weights in bfloat16, computed in float32: {precision.reason}")


def _may_be_served(name: str, device: torch.device) -> bool:
    """Return whether the device's backend may have a decoder of its own for this model."""
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise TrainerError(f"The base model {name!r} cannot be loaded: {error}") from error
    return backend_for(device).may_serve(config.get_text_config().model_type)
