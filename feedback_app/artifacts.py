"""The artifact store of this installation: where hosts find each other's adapters and runs."""

from pathlib import Path

from django.conf import settings

from artifact_store.base import ArtifactStore
from artifact_store.selection import store_of


def artifact_store() -> ArtifactStore:
    """Return the store that ARTIFACT_ROOT names: a directory, or an object store."""
    root = Path(settings.ARTIFACT_ROOT)
    return store_of(
        settings.ARTIFACT_URL or str(root), cache=root, cache_gb=settings.ARTIFACT_CACHE_GB
    )
