"""The engine that the contract is tested against: the embedded one, or any URL.

    python -m pytest tests/engine_contract --engine-url http://127.0.0.1:8001 \\
        [--engine-model NAME] [--engine-adapter p@1=/adapters/p@1 --engine-adapter p@2=…]

Without --engine-url it is the embedded engine on the tiny model. A remote engine also needs
`--allow-hosts HOST`. Its model's name is queried; paths of adapters that it can read must be given,
or the tests that need them are skipped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch

from tests.engines import PATIENCE
from tests.tiny import make_tiny_adapter, make_tiny_model
from tests.trainer.engine.conftest import NAME, serving
from trainer.models.loading import load_base


@dataclass(frozen=True)
class Target:
    """An engine, its base model's name, and two adapters that it can load, by name."""

    url: str
    model: str
    adapters: dict[str, str]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine-url", help="test the contract against this engine")
    parser.addoption("--engine-model", help="its base model; default: the first one listed")
    parser.addoption(
        "--engine-adapter",
        action="append",
        metavar="NAME=PATH",
        help="an adapter that it can load; give two",
    )


@pytest.fixture(scope="session")
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    url = request.config.getoption("--engine-url", None)
    if url is not None:
        given = request.config.getoption("--engine-adapter") or []
        adapters = dict(item.split("=", 1) for item in given)
        model = request.config.getoption("--engine-model")
        if model is None:
            model = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
        yield Target(url.rstrip("/"), model, adapters)
        return
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("contract")
    base = load_base(str(make_tiny_model(root / "model")), dtype="float32", device="cpu")
    adapters = {}
    for number in (1, 2):
        name = f"contract@{number}"
        make_tiny_adapter(root / "artifacts" / name, base, name=name, seed=number)
        adapters[name] = str(root / "artifacts" / name)
    with serving(base, root / "artifacts") as served:
        yield Target(served.url, NAME, adapters)


@pytest.fixture
def client(target: Target) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=target.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def adapters(target: Target, client: httpx.Client) -> Iterator[list[str]]:
    """Load two adapters for the duration of a test."""
    if len(target.adapters) < 2:
        pytest.skip("needs two --engine-adapter NAME=PATH")
    for name, path in target.adapters.items():
        body = {"lora_name": name, "lora_path": path}
        client.post("/v1/load_lora_adapter", json=body).raise_for_status()
    yield list(target.adapters)
    for name in target.adapters:
        client.post("/v1/unload_lora_adapter", json={"lora_name": name})


@pytest.fixture
def nowhere(tmp_path: Path) -> str:
    """Return a path without an adapter."""
    return str(tmp_path / "nothing")
