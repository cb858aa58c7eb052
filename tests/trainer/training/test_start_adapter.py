"""Runs that start from an adapter: real trainings of the tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import make_tiny_adapter
from tests.trainer.conftest import MakeRun, events, write_run
from trainer.artifacts.adapted import adapted
from trainer.artifacts.adapter_directory import CONFIG, MANIFEST, WEIGHTS
from trainer.config import TrainConfig
from trainer.errors import Cancelled, Refused
from trainer.models.loading import LoadedBase, load_base
from trainer.models.lora import Lora
from trainer.signals import StopRequest
from trainer.training.start_adapter import start_faults
from trainer.training.train import train

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def logits(base: LoadedBase) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = base.model(IDS).logits
    return found


@pytest.fixture
def first(tiny: LoadedBase, tmp_path: Path) -> Path:
    """Return the directory of an adapter starter@1 of rank 4 and α 8, as `make_run` trains."""
    make_tiny_adapter(tmp_path / "adapters" / "starter@1", tiny, strength=0.2)
    return tmp_path / "adapters" / "starter@1"


def continued(make_run: MakeRun, name: str = "run", **settings: Any) -> Path:
    start = settings.pop("start_adapter", "../adapters/starter@1")  # relative to the run directory
    return make_run(name, adapter_name="starter@2", start_adapter=start, **settings)


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "adapter" / WEIGHTS)


def test_reference_is_the_base_with_the_adapter_that_training_starts_from(
    tiny: LoadedBase, tiny_dir: Path, first: Path
) -> None:
    with adapted(tiny, first):
        expected = logits(tiny)
    fresh = load_base(str(tiny_dir), dtype="float32", device="cpu")
    lora = Lora.attach(fresh.model, rank=4, alpha=8)
    lora.start_from(load_file(first / WEIGHTS))
    assert torch.equal(logits(fresh), expected)
    for parameter in lora.parameters().values():
        parameter.data.add_(0.1)
    trained = logits(fresh)
    assert not torch.allclose(trained, expected)
    with lora.off():
        assert torch.equal(logits(fresh), expected)
    assert torch.equal(logits(fresh), trained)


def test_run_continues_the_weights_and_names_what_it_started_from(
    make_run: MakeRun, first: Path
) -> None:
    still = continued(make_run, "still", learning_rate=1e-12, epochs=1)
    moved = continued(make_run, "moved", epochs=1)
    for run_dir in (still, moved):
        train(run_dir)
    given = load_file(first / WEIGHTS)
    torch.testing.assert_close(weights(still), given, atol=1e-6, rtol=1e-6)
    assert any(not torch.equal(given[name], it) for name, it in weights(moved).items())
    step = events(moved, "step")[0]
    assert (step["reward_desirable"], step["reward_undesirable"], step["kl"]) == (0, 0, 0)
    assert max(abs(one["kl_unclamped"]) for one in events(still, "step")) < 1e-3
    assert events(moved, "start")[0]["start_adapter"] == "starter@1"
    manifest = json.loads((moved / "adapter" / MANIFEST).read_text())
    sha256 = json.loads((first / MANIFEST).read_text())["files"][WEIGHTS]
    assert manifest["train"]["start"] == {"name": "starter@1", "sha256": sha256}
    card = (moved / "adapter" / "README.md").read_text()
    assert "| `start_adapter` | starter@1 |" in card
    assert f"It continues `starter@1` (weights `{sha256}`)" in card


def test_dropout_does_not_reach_the_reference_of_the_first_step(
    make_run: MakeRun, first: Path
) -> None:
    run_dir = continued(make_run, lora_dropout=0.5, epochs=1)
    train(run_dir)
    assert events(run_dir, "step")[0]["reward_desirable"] != 0


def test_resumed_run_is_that_of_an_undisturbed_one(make_run: MakeRun, first: Path) -> None:
    quiet, stopped = continued(make_run, "quiet"), continued(make_run, "stopped")
    train(quiet)
    # asked to stop from the beginning, a run ends after the step that it is in
    config = json.loads((stopped / "config.json").read_text())
    assert config["checkpoint_every"] == 1
    stop = StopAfterSteps(stopped, 2)
    with pytest.raises(Cancelled):
        train(stopped, stop=stop)
    train(stopped)
    assert events(stopped, "start")[-1]["resumed_from_step"] > 0
    assert (stopped / "adapter" / WEIGHTS).read_bytes() == (
        quiet / "adapter" / WEIGHTS
    ).read_bytes()


class StopAfterSteps(StopRequest):
    """Asks to stop once a run has written so many steps."""

    def __init__(self, run_dir: Path, steps: int) -> None:
        self.run_dir, self.steps = run_dir, steps

    @property
    def asked(self) -> bool:  # type: ignore[override]
        path = self.run_dir / "events.jsonl"
        return path.exists() and path.read_text().count('"type": "step"') >= self.steps


def test_shared_reference_cache_keeps_policies_apart(
    make_run: MakeRun, first: Path, tmp_path: Path
) -> None:
    shared = {"reference_cache": str(tmp_path / "shared")}
    train(make_run("base", **shared))
    alone, together = continued(make_run, "alone"), continued(make_run, "together", **shared)
    for run_dir in (alone, together):
        train(run_dir)
    assert (alone / "adapter" / WEIGHTS).read_bytes() == (
        together / "adapter" / WEIGHTS
    ).read_bytes()


def test_resume_is_refused_when_the_adapter_has_other_weights_now(
    make_run: MakeRun, first: Path, tiny: LoadedBase
) -> None:
    run_dir = continued(make_run)
    with pytest.raises(Cancelled):
        train(run_dir, stop=StopAfterSteps(run_dir, 1))
    make_tiny_adapter(first, tiny, seed=9)
    with pytest.raises(Refused, match="start a new run directory"):
        train(run_dir)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_r": 8}, "lora_r is 8, but starter@1 has 4"),
        ({"lora_alpha": 9}, "lora_alpha is 9, but starter@1 has 8"),
        ({"use_rslora": True}, "use_rslora is True, but starter@1 has False"),
        ({"start_adapter": "../adapters/gone@1"}, "start_adapter gone@1: it is no directory"),
        ({"start_adapter": ""}, "start_adapter must name a directory or be null"),
        ({"start_adapter": "../adapters/part@1"}, "part@1 has other layers .* is missing"),
    ],
)
def test_adapter_that_does_not_fit_is_refused_before_the_base_is_loaded(
    make_run: MakeRun,
    first: Path,
    tiny: LoadedBase,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    said: str,
) -> None:
    make_tiny_adapter(
        first.with_name("part@1"), tiny, name="part@1", layers=["model.layers.0.mlp.up_proj"]
    )
    run_dir = continued(make_run, **settings)
    monkeypatch.setattr("trainer.training.train.load_base", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(Refused, match=said):
        train(run_dir)


def test_relative_directory_is_found_where_the_runs_lie_behind_a_link(
    tiny_dir: Path, first: Path, tmp_path: Path
) -> None:
    (tmp_path / "disk" / "large" / "runs").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "disk" / "large" / "runs")
    start = "../../adapters/starter@1"
    run_dir = write_run(tmp_path / "runs" / "1", tiny_dir, start_adapter=start)
    assert start_faults(run_dir, TrainConfig.read(run_dir / "config.json")) == []


def test_rslora_run_writes_its_scale_and_is_continued_with_it(
    make_run: MakeRun, tiny: LoadedBase, first: Path
) -> None:
    run_dir = make_run("first", use_rslora=True, epochs=1)
    train(run_dir)
    assert json.loads((run_dir / "adapter" / CONFIG).read_text())["use_rslora"] is True
    with adapted(tiny, run_dir / "adapter") as lora:
        assert lora is not None
        assert {layer.scale for layer in lora.layers.values()} == {4.0}  # 8/√4
    after = continued(make_run, start_adapter="../first/adapter", use_rslora=True, epochs=1)
    train(after)
    assert events(after, "start")[0]["start_adapter"] == "starter@1"
