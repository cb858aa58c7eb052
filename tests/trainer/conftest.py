"""A tiny base model on disk, and run directories that train on it in a second."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import make_tiny_model
from trainer.backends import backend_for
from trainer.data.examples import Example, write_examples
from trainer.data.messages import Message
from trainer.models.loading import LoadedBase, load_base

MakeRun = Callable[..., Path]

#: Mark for tests of code that only the compiled CPU backend has.
needs_compiled = pytest.mark.skipif(
    backend_for("cpu").name != "cpu",
    reason="needs the compiled CPU backend: extra `cpu`, PROSPECT_BACKEND unset",
)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Use one thread: on a tiny model threads cost more than they save, above all under load."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def tiny(tiny_dir: Path) -> LoadedBase:
    return load_base(str(tiny_dir), dtype="float32", device="cpu")


def example(number: int, *, label: bool | None = None, **changes: Any) -> Example:
    """Return example `number`: three share a prompt; up and down alternate."""
    given: dict[str, Any] = {
        "id": f"e{number}",
        "prompt": (
            Message("system", "Be short."),
            Message("user", f"Question {number // 3}?"),
        ),
        "completion": f"Answer {number}" + ", and on" * (number % 4) + ".",
        "label": number % 2 == 0 if label is None else label,
        "finish_reason": "stop",
    }
    return Example(**{**given, **changes})


def write_run(
    run_dir: Path, tiny_dir: Path, *, examples: Sequence[Example] | None = None, **config: Any
) -> Path:
    """Write a run directory for the tiny model; keywords change its config."""
    run_dir.mkdir()
    settings = {
        "base_model": str(tiny_dir),
        "adapter_name": "starter@1",
        "batch_size": 4,
        "epochs": 2,
        "lora_r": 4,
        "lora_alpha": 8,
        "learning_rate": 1e-2,
        "probe_every": 100,
        "kl_brake": None,
        "checkpoint_every": 1,
        "token_budget": 128,
        "dtype": "float32",
        "device": "cpu",
        "threads": 1,
    }
    (run_dir / "config.json").write_text(json.dumps({**settings, **config}))
    chosen = [example(number) for number in range(9)] if examples is None else examples
    write_examples(run_dir / "examples.jsonl", chosen)
    return run_dir


@pytest.fixture
def make_run(tmp_path: Path, tiny_dir: Path) -> MakeRun:
    """Return a function that calls `write_run` for a named directory."""

    def make(name: str = "run", **given: Any) -> Path:
        return write_run(tmp_path / name, tiny_dir, **given)

    return make


def events(directory: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Return the events of a run, all or of one type."""
    lines = (directory / "events.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [event for event in found if kind is None or event["type"] == kind]
