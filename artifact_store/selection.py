"""The artifact store of a root: a path or a URL."""

from pathlib import Path

from artifact_store.base import ArtifactStore


def is_url(root: str) -> bool:
    """Return whether a root names an object store instead of a directory."""
    return "://" in root


def store_of(root: str, *, cache: Path, cache_gb: float = 0) -> ArtifactStore:
    """Return the store of a root. `cache` is where a URL's trees are worked on, and `cache_gb` what
    copies of adapters may take there; 0: any number."""
    if not is_url(root):
        return ArtifactStore(Path(root).resolve())
    from artifact_store.objects import ObjectStore

    return ObjectStore(cache.resolve(), root.rstrip("/"), int(cache_gb * 2**30))
