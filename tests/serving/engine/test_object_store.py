"""An engine on a host without adapters, whose artifact root is an object store."""

from pathlib import Path

import httpx
import pytest

from artifact_store.objects import ObjectStore
from tests.engines import run_engine
from tests.s3 import Bucket

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_engine_fetches_an_adapter_that_its_host_does_not_have(
    bucket: Bucket, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_adapter, make_tiny_model
    from trainer.models.loading import load_base

    model = make_tiny_model(tmp_path / "tiny")
    base = load_base(str(model), dtype="float32", device="cpu")
    writer = ObjectStore(tmp_path / "worker", bucket.url)
    for number in (1, 2):
        directory = writer.path(f"adapters/bot@{number}")
        directory.parent.mkdir(parents=True, exist_ok=True)
        make_tiny_adapter(directory, base, name=f"bot@{number}", seed=number)
        writer.push(f"adapters/bot@{number}")
    for key in bucket.objects("here/adapters/bot@2"):
        if not key.endswith("index.json"):
            bucket.filesystem.pipe_file(key, b"damaged")

    cache = tmp_path / "engine host"
    with run_engine(model, cache, served_name="tiny", store=bucket.url) as engine:

        def load(name: str) -> httpx.Response:
            body = {"lora_name": name, "lora_path": str(cache / "adapters" / name)}
            return httpx.post(f"{engine.url}/v1/load_lora_adapter", json=body, timeout=120)

        loaded = load("bot@1")
        assert loaded.status_code == 200, loaded.text
        answer = httpx.post(
            f"{engine.url}/v1/chat/completions",
            json={
                "model": "bot@1",
                "messages": [{"role": "user", "content": "Hello"}],
                "max_tokens": 4,
            },
            timeout=120,
        )
        assert answer.status_code == 200
        damaged, unknown = load("bot@2"), load("bot@3")

    assert (damaged.status_code, unknown.status_code) == (400, 400)
    assert "differs from its hash" in damaged.text
    files = {path.name for path in (cache / "adapters" / "bot@1").iterdir()}
    assert files >= {"manifest.json", "adapter_model.safetensors"}
