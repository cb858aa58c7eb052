"""The artifacts that rows name: adapters, run directories and files that are being imported.

Everything else under ARTIFACT_ROOT can be computed again (`reference/`) or belongs to no row.
"""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from artifact_store.cache import marker_of
from artifact_store.errors import StoreDamaged, StoreError
from artifact_store.selection import store_of
from feedback_app.artifacts import artifact_store
from feedback_app.feedback.imports.files import FOLDER as IMPORTS
from feedback_app.feedback.imports.files import file_fetch
from feedback_app.feedback.models import ImportJob
from feedback_app.operations.backup.manifest import (
    BackedUpFile,
    BackupError,
    Manifest,
    Say,
    megabytes,
)
from feedback_app.training.models import Adapter, Run
from feedback_app.training.registry.files import BadAdapter, manifest_check

#: The folder of the artifacts in a backup.
FOLDER = "artifacts"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class NamedArtifacts:
    """Paths under the artifact root that the rows of one moment name."""

    adapters: dict[str, str]
    # run directories, and whether the run can still use its checkpoints
    runs: dict[str, bool]
    # directories of adapters that runs have yet to verify
    imported: list[str]
    imports: list[str]


def artifacts_named() -> NamedArtifacts:
    """Read which artifacts the database names. Call it in the snapshot of the backup."""
    root = str(settings.ARTIFACT_ROOT)
    jobs = ImportJob.objects.filter(uploaded=True, status__in=ImportJob.OPEN)
    runs = Run.objects.order_by("pk").values_list("pk", "status")
    kept = Adapter.objects.filter(deleted_at=None)
    return NamedArtifacts(
        adapters=dict(kept.order_by("pk").values_list("name", "path")),
        runs={f"runs/{pk}": status not in Run.DONE for pk, status in runs},
        imported=imported_trees(),
        imports=[
            str(Path(path).relative_to(root))
            for path in jobs.values_list("path", flat=True)
            if Path(path).is_relative_to(root)
        ],
    )


def imported_trees() -> list[str]:
    """Return the directories of the adapters that runs which have not ended are importing."""
    runs = Run.objects.filter(trigger=Run.Trigger.IMPORTED).exclude(status__in=Run.DONE)
    return [str(run.config["imported"]) for run in runs.only("config").order_by("pk")]


def imports_copy(named: NamedArtifacts, into: Path, manifest: Manifest) -> None:
    """Copy the files of open imports, which are deleted when the import has ended."""
    for path in named.imports:
        file_bring(path)
        if not file_copy(path, into, manifest):
            manifest.missing.append(f"{path}, the file of an import that has ended meanwhile")


def file_bring(path: str) -> None:
    """Bring the file of an import to this host; one that is damaged in the store is left out."""
    with contextlib.suppress(StoreDamaged):
        file_fetch(Path(settings.ARTIFACT_ROOT) / path)


def adapters_and_runs_copy(named: NamedArtifacts, into: Path, manifest: Manifest, say: Say) -> None:
    """Copy adapters and run directories, and verify the copy of each adapter.

    A run may train meanwhile: its checkpoints are renamed into place, and its trainer passes over
    one that was copied while it was deleted.
    """
    for name, path in named.adapters.items():
        size = tree_copy(path, into, manifest)
        try:
            manifest_check(into / FOLDER / path, name=name)
        except BadAdapter as error:
            manifest.missing.append(f"adapter {error}")
            say(f"  adapter {error}")
        else:
            say(f"  adapter {name}: {megabytes(size)}")
    size = 0
    for path, with_checkpoints in named.runs.items():
        size += tree_copy(path, into, manifest, skip="" if with_checkpoints else CHECKPOINTS)
    for path in named.imported:
        size += tree_copy(path, into, manifest)
    say(f"  {len(named.runs)} runs: {megabytes(size)}")


def tree_copy(path: str, into: Path, manifest: Manifest, *, skip: str = "") -> int:
    """Copy a directory under the artifact root; return the number of bytes."""
    if artifact_store().remote:
        return tree_fetch(path, into, manifest, skip=skip)
    root = Path(settings.ARTIFACT_ROOT)
    size = 0
    for file in files_below(root / path, skip=skip):
        name = str(file.relative_to(root))
        if file_copy(name, into, manifest):
            size += manifest.files[f"{FOLDER}/{name}"].bytes
    return size


def tree_fetch(path: str, into: Path, manifest: Manifest, *, skip: str) -> int:
    """Fetch a tree of the object store into the backup; return the number of bytes.

    What is damaged there is noted as missing. Raises StoreUnreachable.
    """
    root = into / FOLDER
    try:
        store_of(settings.ARTIFACT_URL, cache=root).pull(path)
    except StoreDamaged as error:
        manifest.missing.append(str(error))
    marker_of(root / path).unlink(missing_ok=True)
    size = 0
    for file in files_below(root / path, skip=skip):
        found = BackedUpFile.of(file)
        manifest.files[f"{FOLDER}/{file.relative_to(root)}"] = found
        size += found.bytes
    return size


def files_below(directory: Path, *, skip: str) -> Iterator[Path]:
    """Yield the files of a directory, without links, unfinished files and the folder `skip`."""
    try:
        entries = sorted(directory.iterdir())
    except FileNotFoundError:
        return  # never written, or removed meanwhile
    for entry in entries:
        if entry.is_symlink() or entry.name.endswith(".partial") or entry.name == skip:
            continue
        if entry.is_dir():
            yield from files_below(entry, skip=skip)
        elif entry.is_file():
            yield entry


def file_copy(name: str, into: Path, manifest: Manifest) -> bool:
    """Copy a file under the artifact root and note its hash; return False if it is gone."""
    target = into / FOLDER / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(Path(settings.ARTIFACT_ROOT) / name, target)
    except FileNotFoundError:
        return False
    manifest.files[f"{FOLDER}/{name}"] = BackedUpFile.of(target)
    return True


# -- restore


def artifacts_require_none(manifest: Manifest) -> None:
    """Raise BackupError if a folder that the backup fills has anything in it."""
    root, store = Path(settings.ARTIFACT_ROOT), artifact_store()
    for folder in sorted({target.relative_to(root).parts[0] for target in targets_of(manifest)}):
        if store.remote and store.has(folder):
            raise BackupError(
                f"The installation is not empty: {settings.ARTIFACT_URL}/{folder} has objects. "
                "Restore with an empty ARTIFACT_ROOT, or move them away."
            )
        if (root / folder).exists() and any((root / folder).iterdir()):
            raise BackupError(
                f"The installation is not empty: there are files in {root / folder}. "
                "Restore into an empty ARTIFACT_ROOT, or move them away."
            )


def artifacts_restore(directory: Path, manifest: Manifest, say: Say) -> None:
    """Copy the artifacts of a backup into the artifact root."""
    root = Path(settings.ARTIFACT_ROOT)
    targets = targets_of(manifest)
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(directory / FOLDER / target.relative_to(root), target)
    trees_push()
    say(f"  {len(targets)} files of artifacts")


def trees_push() -> None:
    """Store the trees that the rows name. Raises StoreError."""
    store = artifact_store()
    if not store.remote:
        return
    for path in Adapter.objects.values_list("path", flat=True):
        if store.path(path).is_dir():
            store.push(path)
    for upload in store.path(IMPORTS).glob("[!.]*/"):
        store.push(f"{IMPORTS}/{upload.name}")
    for path in imported_trees():
        if store.path(path).is_dir():
            store.push(path)
    for run in Run.objects.only("pk", "attempt"):
        if run.directory.is_dir():
            store.push(run.tree, max(run.attempt, 1))


def artifacts_remove(manifest: Manifest) -> None:
    """Delete what artifacts_restore has copied, and the folders that became empty."""
    trees_remove(manifest)
    root = Path(settings.ARTIFACT_ROOT)
    folders = set()
    for target in targets_of(manifest):
        target.unlink(missing_ok=True)
        folders |= set(target.relative_to(root).parents)
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        if folder.parts and (root / folder).is_dir() and not any((root / folder).iterdir()):
            (root / folder).rmdir()


def trees_remove(manifest: Manifest) -> None:
    """Remove the trees of a restore that failed from the object store; best effort."""
    store = artifact_store()
    trees = {"/".join(name.split("/")[1:3]) for name in manifest.files if name.startswith(FOLDER)}
    with contextlib.suppress(StoreError):
        for tree in sorted(trees):
            store.remove(tree)


def targets_of(manifest: Manifest) -> list[Path]:
    """Return where the artifacts of a backup belong."""
    root = Path(settings.ARTIFACT_ROOT)
    prefix = f"{FOLDER}/"
    return [root / name.removeprefix(prefix) for name in manifest.files if name.startswith(prefix)]
