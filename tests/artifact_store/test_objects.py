"""Trees in a real S3 server: what arrives on another host, and what is refused."""

import json
from pathlib import Path

import pytest

from artifact_store.base import ArtifactStore
from artifact_store.errors import StoreDamaged, StoreUnreachable
from artifact_store.objects import ObjectStore
from artifact_store.selection import store_of
from tests.s3 import BUCKET, Bucket, Server

pytestmark = pytest.mark.slow  # a server process

TREE = "runs/7"


@pytest.fixture
def here(bucket: Bucket, tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "here", bucket.url)


@pytest.fixture
def there(bucket: Bucket, tmp_path: Path) -> ObjectStore:
    """The same store on another host."""
    return ObjectStore(tmp_path / "there", bucket.url)


def write(store: ArtifactStore, files: dict[str, str], tree: str = TREE) -> None:
    for name, text in files.items():
        path = store.path(tree) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(store: ArtifactStore, tree: str = TREE) -> dict[str, str]:
    root = store.path(tree)
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_folder_is_removed_from_the_store_and_the_rest_arrives(
    here: ObjectStore, there: ObjectStore, bucket: Bucket
) -> None:
    here.begin(TREE, 3)
    # the same content twice: one object, which the other file still needs
    write(here, {"adapter/weights": "w", "adapter/config.json": "{}", "config.json": "{}"})
    here.push(TREE, 3)
    here.remove_part(TREE, "adapter")
    here.remove_part(TREE, "adapter")
    here.remove_part("runs/none", "adapter")
    there.pull(TREE)
    assert read(there) == {"config.json": "{}"}
    assert "adapter/weights" in read(here)
    assert len(bucket.objects(f"here/{TREE}")) == 2  # the content, and the index


def test_tree_arrives_on_another_host_as_it_was_last_pushed(
    here: ObjectStore, there: ObjectStore, bucket: Bucket
) -> None:
    here.begin(TREE, 1)
    write(here, {"config.json": "{}", "checkpoints/step-1/state": "1", "events.jsonl": "a\n"})
    write(here, {"checkpoints/.step-2.partial/state": "half", "x.partial": "half"})
    here.push(TREE, 1)
    there.pull(TREE)
    assert read(there) == {
        "config.json": "{}",
        "checkpoints/step-1/state": "1",
        "events.jsonl": "a\n",
    }

    (here.path(TREE) / "checkpoints/step-1/state").unlink()
    write(here, {"checkpoints/step-2/state": "2", "events.jsonl": "a\nb\n"})
    here.push(TREE, 1)
    there.begin(TREE, 2)
    # the same generation again: what this host holds may be newer than what is stored
    assert "checkpoints/step-1/state" in read(there)
    fresh = ObjectStore(there.local / "fresh", bucket.url)
    fresh.pull(TREE)
    assert read(fresh) == {
        "config.json": "{}",
        "checkpoints/step-2/state": "2",
        "events.jsonl": "a\nb\n",
    }
    # nothing that the index does not name is left
    assert len(bucket.objects(f"here/{TREE}")) == 4


def test_attempt_that_lost_contact_changes_nothing_that_the_next_one_stored(
    here: ObjectStore, there: ObjectStore, bucket: Bucket, tmp_path: Path
) -> None:
    here.begin(TREE, 1)
    write(here, {"state": "old"})
    here.push(TREE, 1)
    there.begin(TREE, 2)
    write(there, {"state": "new"})
    there.push(TREE, 2)
    assert {key.split("/")[4] for key in bucket.objects(f"here/{TREE}")} == {"000002"}

    write(here, {"state": "of the attempt that was thought dead", "more": "x"})
    here.push(TREE, 1)

    fresh = ObjectStore(tmp_path / "fresh", bucket.url)
    fresh.begin(TREE, 3)
    assert read(fresh) == {"state": "new"}
    # and it gets what is newer when it begins again
    here.begin(TREE, 4)
    assert read(here) == {"state": "new"}


def test_host_keeps_what_it_could_not_store(here: ObjectStore) -> None:
    here.begin(TREE, 1)
    write(here, {"state": "stored"})
    here.push(TREE, 1)
    write(here, {"state": "written while the store did not answer"})
    here.begin(TREE, 2)
    assert read(here) == {"state": "written while the store did not answer"}


def test_damaged_content_is_refused_and_leaves_the_host_as_it_was(
    here: ObjectStore, there: ObjectStore, bucket: Bucket
) -> None:
    write(here, {"weights": "right"}, "adapters/bot@1")
    here.push("adapters/bot@1")
    (key,) = [key for key in bucket.objects("here/adapters") if not key.endswith("index.json")]
    bucket.filesystem.pipe_file(key, b"wrong")

    with pytest.raises(StoreDamaged, match="weights in the artifact store differs from its hash"):
        there.fetch("adapters/bot@1")
    assert read(there, "adapters/bot@1") == {}
    assert there.path("adapters/bot@1").is_dir() is False or not any(
        there.path("adapters/bot@1").iterdir()
    )


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", ""])
def test_index_cannot_name_files_outside_of_its_tree(
    there: ObjectStore, bucket: Bucket, name: str
) -> None:
    index = {"format": 1, "files": {name: {"sha256": "0" * 64, "bytes": 1}}}
    bucket.filesystem.pipe_file(
        f"{BUCKET}/here/{TREE}/000001/index.json", json.dumps(index).encode()
    )
    with pytest.raises(StoreDamaged, match=r"index\.json in the artifact store is damaged"):
        there.pull(TREE)


def test_push_without_an_index_yet_does_not_exist_for_readers(
    here: ObjectStore, there: ObjectStore, bucket: Bucket
) -> None:
    write(here, {"state": "1"})
    here.push(TREE, 1)
    # a push of the next generation that was interrupted before its index
    bucket.filesystem.pipe_file(f"{BUCKET}/here/{TREE}/000002/{'0' * 64}", b"half")
    there.pull(TREE)
    assert read(there) == {"state": "1"}


def test_written_once_is_not_asked_for_again_unless_it_is_damaged_here(
    here: ObjectStore, there: ObjectStore, s3_server: Server
) -> None:
    write(here, {"weights": "right"}, "adapters/bot@1")
    here.push("adapters/bot@1")
    there.fetch("adapters/bot@1")
    write(there, {"weights": "wrong"}, "adapters/bot@1")
    there.fetch("adapters/bot@1", again=True)
    assert read(there, "adapters/bot@1") == {"weights": "right"}


def test_store_that_does_not_answer_is_named_and_nothing_changes(
    here: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, {"state": "1"})
    here.push(TREE, 1)
    write(here, {"state": "2"})
    from artifact_store.objects import _opened

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    _opened.cache_clear()
    for action in (here.check, lambda: here.push(TREE, 1), lambda: here.begin("runs/8", 1)):
        with pytest.raises(StoreUnreachable, match="cannot be reached or refuses access"):
            action()
    assert read(here) == {"state": "2"}
    # what is here needs no store
    here.fetch(TREE)


def test_missing_bucket_is_an_error_that_names_it(bucket: Bucket, tmp_path: Path) -> None:
    store = ObjectStore(tmp_path, "s3://no-such-bucket/x")
    with pytest.raises(StoreUnreachable, match="s3://no-such-bucket/x"):
        store.check()


def test_directory_is_used_in_place(tmp_path: Path) -> None:
    store = store_of(str(tmp_path), cache=tmp_path / "cache")
    assert not store.remote
    assert store.path(TREE) == store.pull(TREE) == store.fetch(TREE) == tmp_path / TREE
    store.begin(TREE, 1)
    store.push(TREE, 1)
    store.check()
    assert not (tmp_path / "runs").exists()
    assert store_of("s3://bucket/x/", cache=tmp_path) == ObjectStore(tmp_path, "s3://bucket/x")
