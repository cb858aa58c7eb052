"""Publishing an adapter: complete or not at all, once, and one per name."""

import hashlib
import json
from pathlib import Path

import pytest
from pytest_django import Settings

from feedback_app.training.registry.files import BadAdapter, adapter_publish, manifest_check


@pytest.fixture
def root(tmp_path: Path, settings: Settings) -> Path:
    settings.ARTIFACT_ROOT = tmp_path / "artifacts"
    return tmp_path / "artifacts"


def adapter(directory: Path, *, name: str = "bot@1", weights: bytes = b"weights") -> Path:
    directory.mkdir(parents=True)
    (directory / "adapter_model.safetensors").write_bytes(weights)
    files = {"adapter_model.safetensors": hashlib.sha256(weights).hexdigest()}
    (directory / "manifest.json").write_text(json.dumps({"name": name, "files": files}))
    return directory


def test_publish_twice_is_one_adapter(root: Path, tmp_path: Path) -> None:
    source = adapter(tmp_path / "run" / "adapter")
    first = adapter_publish(source, name="bot@1")
    assert first == adapter_publish(source, name="bot@1")
    assert first[0] == "adapters/bot@1"
    assert [path.name for path in (root / "adapters").iterdir()] == ["bot@1"]


def test_publish_after_a_kill_halfway_starts_over(root: Path, tmp_path: Path) -> None:
    source = adapter(tmp_path / "adapter")
    half = root / "adapters" / ".bot@1.partial"
    half.mkdir(parents=True)
    (half / "adapter_model.safetensors").write_bytes(b"wei")
    adapter_publish(source, name="bot@1")
    manifest_check(root / "adapters" / "bot@1", name="bot@1")
    assert not half.exists()


def test_publish_other_weights_under_a_known_name_is_refused(root: Path, tmp_path: Path) -> None:
    adapter_publish(adapter(tmp_path / "one"), name="bot@1")
    with pytest.raises(BadAdapter, match="other weights"):
        adapter_publish(adapter(tmp_path / "two", weights=b"others"), name="bot@1")


def test_check_lists_every_error(root: Path, tmp_path: Path) -> None:
    directory = adapter(tmp_path / "adapter", name="bot@2")
    (directory / "adapter_model.safetensors").write_bytes(b"changed")
    with pytest.raises(BadAdapter) as fault:
        manifest_check(directory, name="bot@1")
    assert "bot@2" in str(fault.value)
    assert "differs from its hash" in str(fault.value)


def test_check_refuses_paths_outside_the_directory(root: Path, tmp_path: Path) -> None:
    directory = adapter(tmp_path / "adapter")
    manifest = {"name": "bot@1", "files": {"../secret": "0", "adapter_model.safetensors": "0"}}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadAdapter, match="secret is missing"):
        manifest_check(directory, name="bot@1")


def test_publish_into_a_read_only_root_keeps_earlier_adapters(root: Path, tmp_path: Path) -> None:
    adapter_publish(adapter(tmp_path / "one"), name="bot@1")
    blocked = root / "adapters" / ".bot@2.partial"
    blocked.write_text("a file is where the directory must be")
    with pytest.raises(OSError, match=r"bot@2\.partial"):
        adapter_publish(adapter(tmp_path / "two", name="bot@2"), name="bot@2")
    manifest_check(root / "adapters" / "bot@1", name="bot@1")
    assert not (root / "adapters" / "bot@2").exists()
