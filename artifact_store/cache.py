"""The copies of registered adapters that a host of an object store has on disk.

They can be fetched again, so the oldest are deleted once they take too much. Directories of runs
are left alone: a worker may have files there that are not stored yet.
"""

import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

ADAPTERS = "adapters"
#: A copy that was asked for within so many seconds is kept: a job may be about to read it.
RECENT = 24 * 3600.0


@dataclass(frozen=True)
class Copy:
    """A tree on this host that has been stored or fetched; `used`: when it was last asked for, in
    seconds since 1970."""

    tree: str
    marker: Path
    used: float
    bytes: int


def marker_of(local: Path) -> Path:
    """Return the file that names the generation of a local tree.

    It is beside the tree: an adapter with a file that its manifest does not list is refused.
    """
    return local.with_name(f".{local.name}.generation")


def used(local: Path) -> None:
    """Note that a local tree is asked for now."""
    with suppress(OSError):  # of a directory that this process only reads
        marker_of(local).touch()


def copies(root: Path) -> list[Copy]:
    """Return the copies below a root, the one that was asked for longest ago first."""
    found = []
    for path in (root / ADAPTERS).glob("[!.]*"):
        try:
            asked = marker_of(path).stat().st_mtime
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        except OSError:
            continue  # not stored yet, or being deleted
        found.append(Copy(f"{ADAPTERS}/{path.name}", marker_of(path), asked, size))
    return sorted(found, key=lambda copy: copy.used)


def cache_trim(root: Path, *, most: int, keep: Collection[str] = ()) -> list[str]:
    """Delete the oldest copies until those that are left take `most` bytes; return their trees.

    Neither trees in `keep` nor those that were asked for lately are deleted, so that more than
    `most` may be left.
    """
    present = copies(root)
    total = sum(copy.bytes for copy in present)
    deleted = []
    for copy in present:
        if total <= most:
            break
        if copy.tree in keep or time.time() - copy.used < RECENT:
            continue
        # without its marker it is fetched again, and never read in part
        copy.marker.unlink(missing_ok=True)
        aside = (root / copy.tree).with_name(f".{uuid4().hex}.deleted")
        try:
            (root / copy.tree).rename(aside)
        except FileNotFoundError:
            continue  # another process deletes it
        shutil.rmtree(aside, ignore_errors=True)
        total -= copy.bytes
        deleted.append(copy.tree)
    return deleted
