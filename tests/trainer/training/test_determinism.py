"""`deterministic: true`: torch's deterministic algorithms during the run, and only then."""

import os

import pytest
import torch

from tests.trainer.conftest import MakeRun, events
from trainer.config import TrainConfig
from trainer.errors import Refused
from trainer.training.loop import Trainer
from trainer.training.train import train

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("wanted", [False, True])
def test_run_uses_deterministic_algorithms_where_asked(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    monkeypatch.setenv("PROSPECT_BACKEND", "torch_reference")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is restored
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    seen: list[tuple[bool, str | None]] = []
    real = Trainer.run

    def recorded(trainer: Trainer) -> object:
        enabled = torch.are_deterministic_algorithms_enabled()
        seen.append((enabled, os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        return real(trainer)

    monkeypatch.setattr(Trainer, "run", recorded)
    run_dir = make_run(deterministic=wanted, epochs=1)
    train(run_dir)
    assert seen == [(wanted, ":4096:8" if wanted else None)]
    assert events(run_dir, "done")  # every operation of a step has a deterministic algorithm
    assert not torch.are_deterministic_algorithms_enabled()


def test_deterministic_must_be_a_boolean() -> None:
    with pytest.raises(Refused, match="deterministic must be true or false"):
        TrainConfig("some/model", "starter@1", deterministic="yes")  # type: ignore[arg-type]
