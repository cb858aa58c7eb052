"""A file that grows on one host and is followed on another, piece by piece in the object store.

A piece is named by the place of its first byte in the file.
"""

from pathlib import Path

from artifact_store.objects import files_put, folder_read, folder_remove

#: The most bytes of a piece.
PIECE_BYTES = 2**20


def folder_of(url: str, name: str) -> str:
    """Return where the pieces of a job's file are."""
    return f"{url}/jobs/{name}"


class PieceSender:
    """Sends what is added to a file after this object was made."""

    def __init__(self, url: str, name: str, path: Path) -> None:
        self._folder, self._path = folder_of(url, name), path
        self._sent = path.stat().st_size if path.exists() else 0

    def send(self) -> bytes:
        """Send what was added since the last call, and return it. Raises StoreUnreachable; then the
        next call sends it."""
        if not self._path.exists():
            return b""
        added = b""
        with self._path.open("rb") as file:
            file.seek(self._sent)
            while piece := file.read(PIECE_BYTES):
                files_put(self._folder, {f"{self._sent:015d}": piece})
                self._sent += len(piece)
                added += piece
        return added


class PieceReceiver:
    """Appends what a PieceSender sends to a file that was the same at first."""

    def __init__(self, url: str, name: str, path: Path) -> None:
        self._folder, self._path = folder_of(url, name), path

    def receive(self) -> None:
        """Append new pieces. Raises StoreUnreachable.

        Those that the file has are left: both hosts may see the same file.
        """
        for name, piece in folder_read(self._folder, after=f"{self._size():015d}"):
            if int(name) == self._size():
                with self._path.open("ab") as file:
                    file.write(piece)

    def _size(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def remove(self) -> None:
        """Delete the pieces. Raises StoreUnreachable."""
        folder_remove(self._folder)
