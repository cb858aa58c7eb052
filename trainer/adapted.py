"""A base model that carries an adapter for a while."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file

from trainer.artifact import CONFIG, WEIGHTS
from trainer.lora import Lora
from trainer.model import LoadedBase


@contextmanager
def adapted(base: LoadedBase, path: Path | None) -> Iterator[Lora | None]:
    """Inside, the base carries the verified adapter at `path` (None: it stays bare); afterwards it
    is bare again."""
    if path is None:
        yield None
        return
    settings = json.loads((path / CONFIG).read_bytes())
    lora = Lora.attach(base.model, rank=settings["r"], alpha=settings["lora_alpha"])
    try:
        lora.load(load_file(path / WEIGHTS))
        yield lora
    finally:
        lora.detach()
