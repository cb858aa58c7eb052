"""A tree in an object store: an index, and one object for each content.

`<tree>/<generation>/<sha256>` are the contents, `<tree>/<generation>/index.json` names the files.
The index is written last and as a whole, so a reader sees the tree before a push or after it. Only
the generation of its own attempt is written to, so an attempt that lost contact disturbs nothing.
"""

import hashlib
import io
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

from artifact_store.base import ONLY, ArtifactStore
from artifact_store.cache import cache_trim, marker_of, used
from artifact_store.errors import StoreDamaged, StoreError, StoreUnreachable
from artifact_store.files import Changed, StoredFile, bounded, file_matches, files_of, stored_file

INDEX = "index.json"
_FORMAT = 1
#: How often a push or pull begins again because files or objects change meanwhile.
_TRIES = 5
_BLOCK = 8 * 2**20
#: What is read at once of a file that is not read to its end.
_PART = 2**20
#: S3: silence of the server in seconds, and attempts of one request.
_S3 = {
    "config_kwargs": {
        "connect_timeout": 5,
        "read_timeout": 60,
        "retries": {"max_attempts": 1},  # s3fs repeats requests itself
    }
}


@lru_cache(maxsize=4)
def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and its path there. Raises StoreUnreachable."""
    options = _S3 if url.startswith(("s3://", "s3a://")) else {}
    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(
            url, use_listings_cache=False, skip_instance_cache=True, **options
        )
    except (ImportError, ValueError) as error:
        raise StoreUnreachable(f"{url} cannot be used: {error}") from error
    return filesystem, path.rstrip("/")


def files_put(url: str, files: Mapping[str, Path | bytes]) -> None:
    """Write files under their names below a URL, for others to read: no tree of an ObjectStore.

    Their order is kept. Raises StoreUnreachable.
    """
    filesystem, root = _opened(url)
    with _reaching(url):
        for name, content in files.items():
            if isinstance(content, bytes):
                filesystem.pipe_file(f"{root}/{name}", content)
            else:
                filesystem.put_file(str(content), f"{root}/{name}")


def folder_read(url: str, *, after: str) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of a folder's files in their order, from the name `after` on.

    Raises StoreUnreachable.
    """
    filesystem, root = _opened(url)
    with _reaching(url):
        try:
            paths = sorted(filesystem.ls(root, detail=False))
        except FileNotFoundError:
            return
        for path in paths:
            if Path(path).name >= after:
                yield Path(path).name, filesystem.cat_file(path)


def folder_remove(url: str) -> None:
    """Delete a folder of files, if there is one. Raises StoreUnreachable."""
    filesystem, root = _opened(url)
    with _reaching(url), suppress(FileNotFoundError):
        filesystem.rm(root, recursive=True)


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Turn whatever the file system's library raises into a StoreError."""
    try:
        yield
    except StoreError:
        raise
    # libraries raise their own types for time-outs, missing buckets and refused credentials
    except Exception as error:
        raise StoreUnreachable(
            f"The artifact store {url} cannot be reached or refuses access "
            f"({type(error).__name__}: {error})"
        ) from error


class _Start(io.RawIOBase):
    """The first bytes of a file in the store, as if it ended there."""

    def __init__(self, raw: Any, size: int, url: str) -> None:
        self._raw, self._size, self._url = raw, size, url
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._size - self._at))
        with _reaching(self._url):
            self._raw.seek(self._at)
            piece = self._raw.read(wanted) if wanted else b""
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def close(self) -> None:
        self._raw.close()
        super().close()


@dataclass(frozen=True)
class ObjectStore(ArtifactStore):
    """Trees below `url` (s3://bucket/prefix, or another URL of fsspec), worked on in `local`, where
    copies of adapters take `most` bytes (artifact_store/cache.py); 0: any number."""

    url: str
    most: int = 0

    @property
    def remote(self) -> bool:
        return True

    def begin(self, tree: str, generation: int) -> None:
        self.pull(tree)
        self.path(tree).mkdir(parents=True, exist_ok=True)
        _marker_write(self.path(tree), generation)

    def push(self, tree: str, generation: int = ONLY, *, leave_out: Collection[str] = ()) -> None:
        filesystem, root = _opened(self.url)
        base = f"{root}/{tree}/{generation:06d}"
        with _reaching(self.url):
            before = self._index(filesystem, base) or {}
            files = self._upload(
                filesystem, base, tree, {file.sha256 for file in before.values()}, leave_out
            )
            _index_write(filesystem, base, files)
            _marker_write(self.path(tree), generation)
            self._clean(filesystem, base, {file.sha256 for file in files.values()})

    def hand_over(self, tree: str, generation: int) -> None:
        self.push(tree, generation)
        marker_of(self.path(tree)).unlink()

    def fetch(self, tree: str, *, again: bool = False) -> Path:
        local = self.path(tree)
        if again:
            marker_of(local).unlink(missing_ok=True)
        if not _marker_read(local):
            return self.pull(tree)
        used(local)
        return local

    def pull(self, tree: str) -> Path:
        filesystem, root = _opened(self.url)
        local = self.path(tree)
        here = _marker_read(local)
        last: Exception | None = None
        with _reaching(self.url):
            for _ in range(_TRIES):
                found = self._newest(filesystem, f"{root}/{tree}")
                if found is None or found <= here:
                    return local
                base = f"{root}/{tree}/{found:06d}"
                try:
                    files = self._index(filesystem, base)
                    if files is not None:
                        self._download(filesystem, base, files, local)
                        _marker_write(local, found)
                        return local
                except FileNotFoundError as error:  # replaced meanwhile
                    last = error
            raise StoreDamaged(f"{self.url}/{tree} is incomplete: {last}")

    def opened(self, tree: str, name: str, *, most: int) -> IO[bytes]:
        filesystem, root = _opened(self.url)
        with _reaching(self.url):
            found = self._newest(filesystem, f"{root}/{tree}")
            base = f"{root}/{tree}/{found or 0:06d}"
            file = (self._index(filesystem, base) or {}).get(name)
            if file is not None:
                raw = filesystem.open(f"{base}/{file.sha256}", "rb", block_size=_PART)
                start = _Start(raw, min(most, file.bytes), self.url)
                return io.BufferedReader(start, _PART)
        raise FileNotFoundError(f"{self.url} has no {tree}/{name}")

    def copy_part(self, tree: str, folder: str, target: Path) -> None:
        filesystem, root = _opened(self.url)
        partial = target.with_name(f".{target.name}.partial")
        with _reaching(self.url):
            found = self._newest(filesystem, f"{root}/{tree}")
            base = f"{root}/{tree}/{found or 0:06d}"
            for name, file in (self._index(filesystem, base) or {}).items():
                path = PurePosixPath(name)
                if path.is_relative_to(folder):
                    place = partial / path.relative_to(folder)
                    self._download_one(filesystem, f"{base}/{file.sha256}", place, file)
        if partial.exists():
            partial.rename(target)

    def has(self, tree: str) -> bool:
        filesystem, root = _opened(self.url)
        with _reaching(self.url):
            try:
                return bool(filesystem.ls(f"{root}/{tree}", detail=False))
            except FileNotFoundError:
                return False

    def remove(self, tree: str) -> None:
        if self.has(tree):
            filesystem, root = _opened(self.url)
            with _reaching(self.url):
                filesystem.rm(f"{root}/{tree}", recursive=True)

    def remove_part(self, tree: str, folder: str) -> None:
        filesystem, root = _opened(self.url)
        with _reaching(self.url):
            found = self._newest(filesystem, f"{root}/{tree}")
            base = f"{root}/{tree}/{found or 0:06d}"
            files = self._index(filesystem, base) or {}
            kept = {
                name: file
                for name, file in files.items()
                if not PurePosixPath(name).is_relative_to(folder)
            }
            if len(kept) < len(files):
                _index_write(filesystem, base, kept)
                self._clean(filesystem, base, {file.sha256 for file in kept.values()})

    def trim(self, *, keep: Collection[str] = ()) -> None:
        if self.most:
            cache_trim(self.local, most=self.most, keep=keep)

    def check(self) -> None:
        filesystem, root = _opened(self.url)
        with _reaching(self.url):
            filesystem.pipe_file(f"{root}/.check", b"prospect")
            if filesystem.cat_file(f"{root}/.check") != b"prospect":
                raise StoreDamaged(f"{self.url} returns other bytes than were written")
            filesystem.rm_file(f"{root}/.check")

    def _newest(self, filesystem: Any, base: str) -> int | None:
        """Return the highest generation that has an index."""
        try:
            names = [Path(path).name for path in filesystem.ls(base, detail=False)]
        except FileNotFoundError:
            return None
        numbers = sorted((int(name) for name in names if name.isdecimal()), reverse=True)
        return next((n for n in numbers if filesystem.exists(f"{base}/{n:06d}/{INDEX}")), None)

    def _index(self, filesystem: Any, base: str) -> dict[str, StoredFile] | None:
        """Return the files of a generation by name; None if it has no index."""
        try:
            raw = filesystem.cat_file(f"{base}/{INDEX}")
        except FileNotFoundError:
            return None
        try:
            index = json.loads(raw)
            if index["format"] != _FORMAT:
                raise StoreDamaged(f"{base}/{INDEX} is of another version of Prospect")
            return {name: stored_file(name, entry) for name, entry in index["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreDamaged(f"{base}/{INDEX} in the artifact store is damaged") from error

    def _upload(
        self,
        filesystem: Any,
        base: str,
        tree: str,
        present: set[str],
        leave_out: Collection[str],
    ) -> dict[str, StoredFile]:
        """Upload contents that are not `present` yet; return the files as they were."""
        for _ in range(_TRIES):
            try:
                files = dict(files_of(self.path(tree), skip=set(leave_out)))
                for name, file in files.items():
                    if file.sha256 not in present:
                        self._upload_one(filesystem, base, self.path(tree) / name, file)
                        present.add(file.sha256)
                return files
            except (Changed, FileNotFoundError):
                continue  # a checkpoint was replaced while it was read
        raise StoreError(f"The files of {self.path(tree)} change faster than they can be stored")

    def _upload_one(self, filesystem: Any, base: str, path: Path, file: StoredFile) -> None:
        hasher = hashlib.sha256()
        target = f"{base}/{file.sha256}"
        with path.open("rb") as source, filesystem.open(target, "wb", block_size=_BLOCK) as sink:
            for piece in bounded(source, file.bytes):
                hasher.update(piece)
                sink.write(piece)
        if hasher.hexdigest() != file.sha256:
            raise Changed(str(path))

    def _download(
        self, filesystem: Any, base: str, files: dict[str, StoredFile], local: Path
    ) -> None:
        """Make `local` hold exactly these files, each verified by its hash."""
        local.mkdir(parents=True, exist_ok=True)
        for name, file in files.items():
            if not file_matches(local / name, file):
                self._download_one(filesystem, f"{base}/{file.sha256}", local / name, file)
        wanted = {local / name for name in files}
        for path in sorted(local.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in wanted:
                path.unlink(missing_ok=True)

    def _download_one(self, filesystem: Any, source: str, target: Path, file: StoredFile) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        hasher = hashlib.sha256()
        try:
            with (
                filesystem.open(source, "rb", block_size=_BLOCK) as stream,
                partial.open("wb") as out,
            ):
                while piece := stream.read(_BLOCK):
                    hasher.update(piece)
                    out.write(piece)
            if hasher.hexdigest() != file.sha256:
                raise StoreDamaged(
                    f"{target.name} in the artifact store differs from its hash ({source}): "
                    "it was not used. Restore it from a backup or another host"
                )
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _clean(self, filesystem: Any, base: str, used: set[str]) -> None:
        """Delete contents that the index no longer names, and generations before this one."""
        keep = used | {INDEX}
        old = [p for p in filesystem.ls(base, detail=False) if Path(p).name not in keep]
        parent, own = base.rsplit("/", 1)
        for path in filesystem.ls(parent, detail=False):
            if Path(path).name.isdecimal() and int(Path(path).name) < int(own):
                # the index first: a tree without one does not exist
                inside = filesystem.ls(path, detail=False)
                old += sorted(inside, key=lambda name: not name.endswith(f"/{INDEX}"))
        for path in old:
            filesystem.rm_file(path)


def _index_write(filesystem: Any, base: str, files: dict[str, StoredFile]) -> None:
    index = {
        "format": _FORMAT,
        "files": {name: file.as_json() for name, file in sorted(files.items())},
    }
    filesystem.pipe_file(f"{base}/{INDEX}", json.dumps(index, indent=1).encode())


def _marker_read(local: Path) -> int:
    """Return the generation that a local tree belongs to; 0 if there is none."""
    try:
        return int(marker_of(local).read_text()) if local.is_dir() else 0
    except (OSError, ValueError):
        return 0


def _marker_write(local: Path, generation: int) -> None:
    marker = marker_of(local)
    partial = marker.with_suffix(".partial")
    partial.write_text(str(generation))
    partial.replace(marker)
