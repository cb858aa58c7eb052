"""The adapter registry's files: numbered directories under the artifact root."""

import hashlib
import json
from pathlib import Path
from typing import Any

from django.conf import settings


class BadAdapter(Exception):
    """The directory is no adapter that may be registered; the message lists every fault."""


def file_sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_check(directory: Path, *, name: str) -> dict[str, Any]:
    """Reads the manifest and compares every hash in it; raises BadAdapter with all faults."""
    try:
        manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise BadAdapter(f"{directory.name} has no readable manifest.json: {error}") from error
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


def adapter_directory(name: str) -> Path:
    """Where an adapter of this name lives once it is registered."""
    return Path(settings.ARTIFACT_ROOT) / "adapters" / name


def adapter_publish(source: Path, *, name: str) -> tuple[str, str]:
    """Moves a finished adapter to its place; returns (path under the root, sha256).

    A rename within one file system: there is never half an adapter. Called again after a
    crash it finds the adapter in place and returns the same.
    """
    target = adapter_directory(name)
    if not target.exists():
        manifest_check(source, name=name)
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    manifest = manifest_check(target, name=name)
    relative = target.relative_to(settings.ARTIFACT_ROOT)
    return str(relative), str(manifest["files"]["adapter_model.safetensors"])
