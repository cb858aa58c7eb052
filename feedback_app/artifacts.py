"""The artifact store of this installation: where hosts find each other's adapters and runs."""

import shutil
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from artifact_store.base import ArtifactStore
from artifact_store.cache import marker_of
from artifact_store.errors import StoreError
from artifact_store.selection import store_of


def artifact_store() -> ArtifactStore:
    """Return the store that ARTIFACT_ROOT names: a directory, or an object store."""
    root = Path(settings.ARTIFACT_ROOT)
    return store_of(
        settings.ARTIFACT_URL or str(root), cache=root, cache_gb=settings.ARTIFACT_CACHE_GB
    )


def tree_discard(tree: str) -> None:
    """Delete a tree that nothing uses, from this host and from the artifact store. A store that
    does not answer keeps it."""
    store = artifact_store()
    shutil.rmtree(store.path(tree), ignore_errors=True)
    marker_of(store.path(tree)).unlink(missing_ok=True)
    with suppress(StoreError):
        store.remove(tree)
