"""Find, check and read adapter directories."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from artifact_store.base import ArtifactStore
from artifact_store.errors import StoreDamaged
from trainer.artifacts.adapter_directory import CONFIG, WEIGHTS, Manifest, verify_adapter
from trainer.backends.base import AdapterWeights
from trainer.errors import BadArtifact
from trainer.models.loading import LoadedBase
from trainer.models.lora import PREFIX, adapted_layers, scale_of

MAX_RANK = 256


def inside(root: Path, path: str) -> Path:
    """Return the adapter directory that `path` (absolute or below `root`) means.

    Raises BadArtifact when it is outside `root`, also through symlinks.
    """
    try:
        directory = (root / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadArtifact(f"{path!r} is no usable path ({error})") from error
    if not directory.is_relative_to(root.resolve()) or directory == root.resolve():
        raise BadArtifact("it is outside the artifact root", path=directory)
    return directory


def fetched(store: ArtifactStore | None, directory: Path) -> None:
    """Bring an adapter to this host unless it is here. Raises BadArtifact if it is damaged in the
    store, and StoreUnreachable.

    `store` works below the artifact root that `directory` is in; None for a root that all hosts
    see.
    """
    if store is not None:
        try:
            store.fetch(directory.relative_to(store.local.resolve()).as_posix())
        except StoreDamaged as error:
            raise BadArtifact(str(error), path=directory) from error


def trimmed(store: ArtifactStore | None, loaded: Iterable[Path]) -> None:
    """Delete old copies of adapters on this host, none of those that are `loaded`."""
    if store is not None:
        root = store.local.resolve()
        store.trim(keep={path.relative_to(root).as_posix() for path in loaded})


def read_adapter(
    directory: Path, base: LoadedBase, shapes: Mapping[str, torch.Size], *, name: str | None = None
) -> tuple[Manifest, AdapterWeights]:
    """Verify an adapter directory and reads it for a base whose linear layers have `shapes`.

    `name` is the one it must bear; None takes any. Raises BadArtifact with every fault: of the
    directory, or of how it fits this base and name.
    """
    manifest = verify_adapter(
        directory,
        base_fingerprint=base.fingerprint,
        max_rank=MAX_RANK,
        shapes=shapes,
        name=name,
    )
    scale = scale_of(json.loads((directory / CONFIG).read_bytes()))
    tensors = load_file(directory / WEIGHTS)
    weights = {
        layer: (
            tensors[f"{PREFIX}{layer}.lora_A.weight"].to(base.device, base.dtype),
            (tensors[f"{PREFIX}{layer}.lora_B.weight"].float() * scale).to(base.device, base.dtype),
        )
        for layer in adapted_layers(tensors)
    }
    return manifest, weights
