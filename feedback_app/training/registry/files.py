"""The adapter registry's files: numbered directories under the artifact root."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from artifact_store.errors import StoreDamaged
from feedback_app.artifacts import artifact_store
from feedback_app.training.models import Adapter, Run

#: The folder of all registered adapters under the artifact root.
FOLDER = "adapters"


class BadAdapter(Exception):
    """The directory is not a valid adapter; the message lists every fault."""


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_check(directory: Path, *, name: str) -> dict[str, Any]:
    """Check the manifest and every hash in it. Raises BadAdapter with all faults."""
    try:
        manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        # without the path: a backup compares what it says with what a restore finds elsewhere
        why = error.strerror if isinstance(error, OSError) else error
        raise BadAdapter(f"{directory.name} has no readable manifest.json: {why}") from error
    faults = []
    if manifest.get("name") != name:
        faults.append(f"the manifest is of {manifest.get('name')!r}, not of {name!r}")
    files = manifest.get("files", {})
    if "adapter_model.safetensors" not in files:
        faults.append("the manifest names no adapter_model.safetensors")
    for file_name, digest in files.items():
        path = directory / file_name
        if path.parent != directory or not path.is_file():
            faults.append(f"{file_name} is missing")
        elif file_sha256(path) != digest:
            faults.append(f"{file_name} differs from its hash")
    if faults:
        raise BadAdapter(f"{name}: " + "; ".join(faults))
    return manifest


def adapter_publish(source: Path, *, name: str) -> tuple[str, str]:
    """Copy a finished adapter into the registry and store it; return (path under the root, sha256).

    Linked into a sibling and renamed: there is never half an adapter. Called again after a crash
    it finds the adapter in place. Raises StoreError, and BadAdapter if other weights have this
    name.
    """
    manifest = manifest_check(source, name=name)
    sha256 = str(manifest["files"]["adapter_model.safetensors"])
    tree = f"{FOLDER}/{name}"
    target = artifact_store().fetch(tree)
    if not target.exists():
        partial = target.with_name(f".{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, copy_function=link_or_copy)
        partial.rename(target)
    if manifest_check(target, name=name)["files"]["adapter_model.safetensors"] != sha256:
        raise BadAdapter(
            f"{target} holds other weights of the name {name}, perhaps of an earlier database: "
            "move it away"
        )
    artifact_store().push(tree)
    return tree, sha256


def adapter_fetch(adapter: Adapter) -> Path:
    """Bring the files of a registered adapter to this host, verify them and return the directory.

    Files that are damaged here are brought once more. Raises BadAdapter if they are missing or
    differ from their hashes, and StoreUnreachable if the artifact store cannot be asked.
    """
    store = artifact_store()
    try:
        directory = store.fetch(adapter.path)
        try:
            manifest_check(directory, name=adapter.name)
        except BadAdapter:
            if not store.remote:
                raise
            store.fetch(adapter.path, again=True)
            manifest_check(directory, name=adapter.name)
        store.trim(keep=(adapter.path,))
    except StoreDamaged as error:
        raise BadAdapter(f"{adapter.name}: {error}") from error
    return directory


def link_or_copy(source: str, target: str) -> None:
    """Hard-link a file where the file system supports it: adapters never change."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def run_files_remove(run: Run, adapter: Adapter | None) -> None:
    """Remove all files of a run and of its version, from the artifact store and from this host;
    also those that it was imported from, which a run that has not succeeded still has.

    It can be repeated. Raises StoreError.
    """
    store = artifact_store()
    imported = run.config.get("imported")
    trees = [run.tree, *([adapter.path] if adapter else []), *([imported] if imported else [])]
    for tree in trees:
        store.remove(tree)
    again = run.directory.with_name(f"{run.pk}-again")
    for directory in (again, *(store.path(tree) for tree in trees)):
        shutil.rmtree(directory, ignore_errors=True)
