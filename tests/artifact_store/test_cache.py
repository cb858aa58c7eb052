"""The adapters that a host of an object store keeps on disk are bounded."""

import os
import time
from pathlib import Path

import pytest

from artifact_store.base import ArtifactStore
from artifact_store.cache import RECENT, cache_trim, copies, marker_of
from artifact_store.objects import ObjectStore
from artifact_store.selection import store_of

KB = 1024


def copy(root: Path, name: str, *, days: float, stored: bool = True) -> Path:
    """Write an adapter of 10 kB that was asked for so many days ago."""
    directory = root / "adapters" / name
    (directory / "deep").mkdir(parents=True)
    (directory / "config.json").write_bytes(b"x" * KB)
    (directory / "deep" / "weights").write_bytes(b"x" * 9 * KB)
    if stored:
        marker = marker_of(directory)
        marker.write_text("1")
        then = time.time() - days * 24 * 3600
        os.utime(marker, (then, then))
    return directory


def left(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "adapters").iterdir())


def test_oldest_copies_are_deleted_until_the_limit_is_kept(tmp_path: Path) -> None:
    for name, days in (("a@1", 9), ("a@2", 30), ("a@3", 3), ("a@4", 20)):
        copy(tmp_path, name, days=days)
    assert [found.tree for found in copies(tmp_path)] == [
        "adapters/a@2", "adapters/a@4", "adapters/a@1", "adapters/a@3",
    ]  # fmt: skip
    assert cache_trim(tmp_path, most=40 * KB) == []
    assert cache_trim(tmp_path, most=25 * KB) == ["adapters/a@2", "adapters/a@4"]
    assert left(tmp_path) == [".a@1.generation", ".a@3.generation", "a@1", "a@3"]


def test_loaded_recent_and_unstored_copies_are_kept(tmp_path: Path) -> None:
    copy(tmp_path, "loaded@1", days=99)
    copy(tmp_path, "lately@1", days=0.5 * RECENT / 86400)
    copy(tmp_path, "training@1", days=99, stored=False)
    copy(tmp_path, "old@1", days=2)
    run = tmp_path / "runs" / "7"
    run.mkdir(parents=True)
    marker_of(run).write_text("1")
    assert cache_trim(tmp_path, most=1, keep={"adapters/loaded@1"}) == ["adapters/old@1"]
    assert [name for name in left(tmp_path) if not name.startswith(".")] == [
        "lately@1", "loaded@1", "training@1",
    ]  # fmt: skip
    assert run.is_dir()


def test_copy_that_is_asked_for_again_is_not_the_oldest_any_more(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path, "memory://cache-order", 15 * KB)
    for name, days in (("a@1", 30), ("a@2", 20)):
        copy(tmp_path, name, days=days)
    assert store.fetch("adapters/a@1") == tmp_path / "adapters" / "a@1"
    store.trim()
    assert left(tmp_path) == [".a@1.generation", "a@1"]


def test_deleted_copy_is_fetched_again(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    store = ObjectStore(tmp_path, "memory://cache-again", 1)
    copy(tmp_path, "a@1", days=0)
    store.push("adapters/a@1")
    then = time.time() - 2 * RECENT
    os.utime(marker_of(tmp_path / "adapters" / "a@1"), (then, then))
    store.trim()
    assert left(tmp_path) == []
    assert (store.fetch("adapters/a@1") / "deep" / "weights").stat().st_size == 9 * KB


def test_store_has_the_limit_of_its_installation(tmp_path: Path) -> None:
    found = store_of("s3://bucket/x", cache=tmp_path, cache_gb=0.5)
    assert isinstance(found, ObjectStore)
    assert found.most == 2**29
    for unlimited in (ObjectStore(tmp_path, "s3://bucket/x"), ArtifactStore(tmp_path)):
        copy(tmp_path, f"a@{type(unlimited).__name__}", days=99)
        unlimited.trim()
    assert len(copies(tmp_path)) == 2
