"""The adapter registry's files: numbered directories under the artifact root."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from django.conf import settings


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
    """Return the directory of a registered adapter."""
    return Path(settings.ARTIFACT_ROOT) / "adapters" / name


def adapter_publish(source: Path, *, name: str) -> tuple[str, str]:
    """Copy a finished adapter into the registry; return (path under the root, sha256).

    Linked into a sibling and renamed: there is never half an adapter. Called again after a crash
    it finds the adapter in place. Raises BadAdapter if other weights have this name.
    """
    manifest = manifest_check(source, name=name)
    sha256 = str(manifest["files"]["adapter_model.safetensors"])
    target = adapter_directory(name)
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
    return str(target.relative_to(settings.ARTIFACT_ROOT)), sha256


def link_or_copy(source: str, target: str) -> None:
    """Hard-link a file where the file system supports it: adapters never change."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
