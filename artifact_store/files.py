"""Files of a tree on this host, with their hashes."""

import hashlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

_PIECE = 2**20


class Changed(Exception):
    """A file changed while it was read."""


@dataclass(frozen=True)
class StoredFile:
    """The content of a file: its SHA-256 in hex, and its size in bytes."""

    sha256: str
    bytes: int

    def as_json(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "bytes": self.bytes}


def stored_file(name: str, entry: dict[str, Any]) -> StoredFile:
    """Return a file of an index. Raises ValueError for a name outside of the tree."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{name!r} is outside of its directory")
    return StoredFile(str(entry["sha256"]), int(entry["bytes"]))


def files_of(directory: Path, *, skip: Collection[str]) -> Iterator[tuple[str, StoredFile]]:
    """Yield name and content of the files below a directory, without links, unfinished files and
    the names `skip`.

    A file that grows meanwhile is taken as long as it was at first. Raises FileNotFoundError for
    one that is removed meanwhile.
    """
    for root, folders, names in os.walk(directory):
        folders[:] = sorted(
            folder for folder in folders if not (folder.endswith(".partial") or folder in skip)
        )
        for name in sorted(names):
            path = Path(root) / name
            if name.endswith(".partial") or name in skip or path.is_symlink():
                continue
            yield path.relative_to(directory).as_posix(), content_of(path)


def content_of(path: Path) -> StoredFile:
    """Return hash and size of a file as it is now."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for piece in bounded(file, size):
            hasher.update(piece)
    return StoredFile(hasher.hexdigest(), size)


def bounded(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of a file in pieces. Raises Changed if it has fewer."""
    left = size
    while left:
        piece = file.read(min(left, _PIECE))
        if not piece:
            raise Changed(file.name)
        left -= len(piece)
        yield piece


def file_matches(path: Path, file: StoredFile) -> bool:
    """Return whether a file on this host has this content."""
    try:
        return path.stat().st_size == file.bytes and content_of(path) == file
    except (OSError, Changed):
        return False
