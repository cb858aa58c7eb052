"""The interface of an artifact store, and the store of one directory that every host sees.

A *tree* is a directory below the root, by its relative name: `runs/12`, `adapters/bot@3`. A
*generation* is the number of the attempt that writes a tree; what a lower one writes is not read
once a higher one has written.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO

#: The generation of trees that are written once.
ONLY = 1


@dataclass(frozen=True)
class ArtifactStore:
    """A directory that all hosts see, or one host: nothing is copied.

    `local` is the directory that the processes of this host work in. Every method but `path` may
    raise StoreError in a store that copies.
    """

    local: Path

    @property
    def remote(self) -> bool:
        """Whether trees are copied to and from another place."""
        return False

    def path(self, tree: str) -> Path:
        """Return where the tree is on this host, whether it has been pulled or not."""
        return self.local / tree

    def begin(self, tree: str, generation: int) -> None:
        """Pull the tree if the store has a newer one, and write it as `generation` from now on."""

    def push(self, tree: str, generation: int = ONLY, *, leave_out: Collection[str] = ()) -> None:
        """Store the tree as it is now, without the folders `leave_out`: all of it or nothing."""

    def hand_over(self, tree: str, generation: int) -> None:
        """Store the tree for another host, which goes on writing the generation: from now on the
        store has the tree, and this host an older copy."""

    def pull(self, tree: str) -> Path:
        """Bring the newest generation to this host unless it has that or a newer one.

        Returns the tree's path. A tree that does not exist anywhere is no error.
        """
        return self.path(tree)

    def fetch(self, tree: str, *, again: bool = False) -> Path:
        """Bring a tree that is written once to this host, and return its path.

        What is here already is not asked for, unless `again` says that files here are damaged.
        """
        return self.path(tree)

    def opened(self, tree: str, name: str, *, most: int) -> IO[bytes]:
        """Open a file of a tree for reading its first `most` bytes at least, without bringing the
        tree to this host and without verifying the hash.

        Raises FileNotFoundError. In a store that copies, reading may raise StoreError.
        """
        return (self.path(tree) / name).open("rb")

    def copy_part(self, tree: str, folder: str, target: Path) -> None:
        """Copy a folder of a stored tree to `target`, if there is one."""

    def has(self, tree: str) -> bool:
        """Return whether the tree, or anything below that name, is stored."""
        return self.path(tree).exists()

    def remove(self, tree: str) -> None:
        """Remove the tree from the store; what is on this host stays."""

    def remove_part(self, tree: str, folder: str) -> None:
        """Remove a folder of the tree from the store; what is on this host stays."""

    def trim(self, *, keep: Collection[str] = ()) -> None:
        """Delete the oldest local copies of adapters beyond the limit of this store, without the
        trees `keep`. They are fetched again when they are asked for."""

    def check(self) -> None:
        """Write, read and delete a small object."""
