"""Attach an adapter directory to a base model temporarily."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file

from trainer.artifacts.adapter_directory import CONFIG, WEIGHTS, verify_adapter
from trainer.config import MAX_RANK
from trainer.models.layers import layer_shapes
from trainer.models.loading import LoadedBase
from trainer.models.lora import Lora, adapted_layers


@contextmanager
def adapted(base: LoadedBase, path: Path | None) -> Iterator[Lora | None]:
    """Inside, the base carries the adapter at `path` (None: it stays bare); afterwards it is bare
    again. Raises BadArtifact with every fault of the directory and of how it fits the base."""
    if path is None:
        yield None
        return
    verify_adapter(
        path,
        base_fingerprint=base.fingerprint,
        max_rank=MAX_RANK,
        shapes=layer_shapes(base.model),
    )
    settings = json.loads((path / CONFIG).read_bytes())
    tensors = load_file(path / WEIGHTS)
    lora = Lora.attach(
        base.model,
        rank=settings["r"],
        alpha=settings["lora_alpha"],
        rslora=bool(settings.get("use_rslora")),
        only=adapted_layers(tensors),
    )
    try:
        lora.load(tensors)
        yield lora
    finally:
        lora.detach()
