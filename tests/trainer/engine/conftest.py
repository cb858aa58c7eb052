"""A real engine on the tiny model: real HTTP over loopback, in this process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn

from tests.engines import PATIENCE, wait_until
from tests.tiny import make_tiny_adapter
from trainer.engine.http.server import create_app
from trainer.engine.scheduler import Scheduler
from trainer.models.loading import LoadedBase, load_base

NAME = "tiny"


@dataclass(frozen=True)
class Served:
    """An engine that answers at `url`; tests wait for conditions on its `scheduler`."""

    url: str
    scheduler: Scheduler
    artifacts: Path


@contextmanager
def serving(base: LoadedBase, artifacts: Path, **options: Any) -> Iterator[Served]:
    """Run the engine's app under uvicorn on a free port until the block ends."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    scheduler = Scheduler(base, artifacts, name=NAME, **options)
    failures: list[Exception] = []
    app = create_app(NAME, lambda: scheduler, on_failure=failures.append)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, lifespan="on")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        wait_until(lambda: scheduler.alive or failures, what="the engine")
        assert failures == []
        yield Served(url, scheduler, artifacts)
    finally:
        server.should_exit = True
        thread.join(timeout=PATIENCE)
        listening.close()


@contextmanager
def in_no_hurry(served: Served) -> Iterator[None]:
    """Delay every token by ten milliseconds: the tiny model would finish before a test can look."""
    batch = served.scheduler._batch
    step = batch.step

    def slowly() -> Any:
        time.sleep(0.01)
        return step()

    batch.step = slowly  # type: ignore[method-assign]
    try:
        yield
    finally:
        batch.step = step  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory, tiny_dir: Path) -> Path:
    """Return an artifact root with adapters starter@1 to starter@3."""
    root = tmp_path_factory.mktemp("artifacts")
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    for number in (1, 2, 3):
        name = f"starter@{number}"
        make_tiny_adapter(root / "adapters" / name, base, name=name, seed=number, rank=2 * number)
    return root


@pytest.fixture(scope="session")
def engine(tiny_dir: Path, artifacts: Path) -> Iterator[Served]:
    """Run one engine for all tests that restore its state."""
    torch.set_num_threads(1)
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    with serving(base, artifacts) as served:
        yield served


@pytest.fixture
def client(engine: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=engine.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def adapters(client: httpx.Client) -> Iterator[list[str]]:
    """Load starter@1 and starter@2 for the duration of a test."""
    names = ["starter@1", "starter@2"]
    for name in names:
        load(client, name).raise_for_status()
    yield names
    for name in names:
        client.post("/v1/unload_lora_adapter", json={"lora_name": name})


def load(client: httpx.Client, name: str, path: str | None = None) -> httpx.Response:
    body = {"lora_name": name, "lora_path": path or f"adapters/{name}"}
    return client.post("/v1/load_lora_adapter", json=body)
