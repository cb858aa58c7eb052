"""The manifest of a backup: what it contains, and the hash of every file."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from feedback_app.training.registry.files import file_sha256

NAME = "manifest.json"
#: In the format of sha256sum, so that the manifest itself is protected.
SEAL = "manifest.json.sha256"
FORMAT = 1

Say = Callable[[str], None]


class BackupError(Exception):
    """A backup or restore is not possible; the message says why and what to do."""


@dataclass(frozen=True)
class BackedUpFile:
    """A file of the backup: its size in bytes and its hash."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "BackedUpFile":
        return cls(path.stat().st_size, file_sha256(path))


@dataclass
class Manifest:
    """What a backup contains."""

    #: version of Prospect, database, time (ISO 8601)
    prospect: str
    database: str
    created: str
    #: where the artifacts were
    artifact_root: str
    #: applied migrations as 'app.name': the columns of the tables
    migrations: list[str]
    #: a known text that was encrypted with SECRET_KEY
    sealed_probe: str
    #: rows of each table, and the largest id that it has given
    rows: dict[str, int] = field(default_factory=dict)
    next_ids: dict[str, int] = field(default_factory=dict)
    #: artifacts that were missing or damaged, as sentences
    missing: list[str] = field(default_factory=list)
    #: by path under the backup
    files: dict[str, BackedUpFile] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())


def manifest_write(directory: Path, manifest: Manifest) -> None:
    """Write the manifest. It is the last file: a directory without it is no backup."""
    text = json.dumps(asdict(manifest), indent=1) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    (directory / SEAL).write_text(f"{digest}  {NAME}\n")
    partial = directory / f".{NAME}.partial"
    partial.write_text(text)
    partial.rename(directory / NAME)


def manifest_read(directory: Path) -> Manifest:
    """Return the manifest of a backup. Raises BackupError."""
    path = directory / NAME
    try:
        text = path.read_bytes()
        expected = (directory / SEAL).read_text().split()[:1]
    except OSError as error:
        raise BackupError(
            f"{directory} is not a complete backup: {error.filename} cannot be read "
            f"({error.strerror}). Use another backup."
        ) from error
    if [hashlib.sha256(text).hexdigest()] != expected:
        raise BackupError(f"{path} is damaged: it differs from its hash. Use another backup.")
    values = json.loads(text)
    if values.get("format") != FORMAT:
        raise BackupError(
            f"{path} has format {values.get('format')}; this version of Prospect reads {FORMAT}. "
            f"Restore it with Prospect {values.get('prospect')}, then upgrade."
        )
    files = {name: BackedUpFile(**file) for name, file in values.pop("files").items()}
    return Manifest(**values, files=files)


def files_verify(directory: Path, manifest: Manifest, say: Say) -> None:
    """Compare every file with its hash. Raises BackupError with the names of all damaged files."""
    say(f"Verifying {len(manifest.files)} files, {megabytes(manifest.bytes)} …")
    faults = []
    for name, expected in manifest.files.items():
        path = directory / name
        if not is_inside(name):
            faults.append(f"{name} is outside the backup")
        elif path.is_symlink() or not path.is_file():
            faults.append(f"{name} is missing")
        else:
            try:
                found = BackedUpFile.of(path)
            except OSError as error:
                faults.append(f"{name} cannot be read ({error.strerror})")
            else:
                if found != expected:
                    faults.append(f"{name} differs from its hash")
    if faults:
        shown = "; ".join(faults[:10]) + (f"; and {len(faults) - 10} more" * (len(faults) > 10))
        raise BackupError(
            f"The backup is damaged, and nothing was changed: {shown}. Use another backup."
        )


def is_inside(name: str) -> bool:
    """Return whether a path of a manifest is below the directory that it is relative to."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and bool(path.parts)


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
