"""Figures of runs for TensorBoard, MLflow and Weights & Biases.

Their packages are an extra that the test environment lacks: the tests of a tool run where it is
installed (`pip install '.[reports]'`).
"""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import MakeRun, events
from trainer.config import REPORT_TOOLS, TrainConfig
from trainer.errors import Refused
from trainer.reports import reports
from trainer.reports.reports import figures_of, settings_of
from trainer.reports.tools import REPORTERS, TOOLS
from trainer.training import train

PRIVATE = ("Question", "Answer", "Be short")


class Tool:
    """Keeps what it is given; `fails` raises at the third step."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails
        self.steps: list[int] = []
        self.figures: dict[str, float] = {}
        self.ended = ""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        if self.fails and step == 3:
            raise RuntimeError("the server is gone")
        self.steps.append(step)
        self.figures |= figures

    def end(self, status: str) -> None:
        self.ended = status


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tool]:
    made = {"mlflow": Tool(fails=False), "wandb": Tool(fails=True)}
    for name, tool in made.items():
        monkeypatch.setitem(TOOLS, name, lambda *_, tool=tool: tool)
    return made


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait as long as a busy machine needs to start a tool."""
    monkeypatch.setattr(reports, "FLUSH_SECONDS", 600.0)


def test_every_tool_of_the_configuration_is_there() -> None:
    assert set(REPORT_TOOLS) == set(TOOLS) == set(REPORTERS)
    with pytest.raises(Refused, match="report_to must be a list of"):
        TrainConfig(base_model="b", adapter_name="a@1", report_to=("neptune",))


def test_tool_that_fails_is_left_out_and_the_run_goes_on(
    make_run: MakeRun, tools: dict[str, Tool], patient: None
) -> None:
    run_dir = make_run(report_to=["mlflow", "wandb"])
    train.train(run_dir)

    assert (run_dir / "adapter" / "manifest.json").exists()
    assert tools["mlflow"].steps[:3] == [1, 2, 3]
    assert tools["mlflow"].ended == "FINISHED"
    assert {"step/loss", "step/kl", "step/learning_rate"} <= set(tools["mlflow"].figures)
    assert tools["wandb"].steps[-1] < 3
    assert tools["wandb"].ended == ""
    [warning] = [e["message"] for e in events(run_dir, "warning") if "wandb" in e["message"]]
    assert warning == "nothing more is reported to wandb: RuntimeError: the server is gone"


def test_tool_that_hangs_does_not_keep_the_run(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setitem(TOOLS, "mlflow", lambda *_: released.wait(60))
    monkeypatch.setattr(reports, "FLUSH_SECONDS", 0.1)
    run_dir = make_run(report_to=["mlflow"])
    train.train(run_dir)
    released.set()

    assert (run_dir / "adapter" / "manifest.json").exists()
    messages = [event["message"] for event in events(run_dir, "warning")]
    assert any("were not sent within" in message for message in messages)


def test_package_that_is_missing_is_named(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, patient: None
) -> None:
    def missing(*_: object) -> Any:
        raise ModuleNotFoundError("No module named 'mlflow'")

    monkeypatch.setitem(TOOLS, "mlflow", missing)
    run_dir = make_run(report_to=["mlflow"])
    train.train(run_dir)
    messages = [event["message"] for event in events(run_dir, "warning")]
    assert any("install mlflow-skinny" in message for message in messages)


def test_no_text_and_no_path_is_reported() -> None:
    config = TrainConfig(
        base_model="/srv/models/tiny",
        adapter_name="a@1",
        reference_cache="/srv/cache",
        chat_template_kwargs={"secret": "x"},
    )
    shown = settings_of(config)
    assert shown["base_model"] == "tiny"
    assert "/srv" not in json.dumps(shown)
    assert "secret" not in json.dumps(shown)
    values = {"step": 3, "loss": 0.5, "kl": float("nan"), "message": "Hi", "done": True, "id": "e1"}
    assert figures_of("step", values) == {"step/loss": 0.5}


def test_tensorboard_has_the_curves(make_run: MakeRun, patient: None) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_dir = make_run(report_to=["tensorboard"])
    train.train(run_dir)
    assert not events(run_dir, "warning")

    found = EventAccumulator(str(run_dir / "tensorboard"))
    found.Reload()
    losses = [event["loss"] for event in events(run_dir, "step")]
    assert [point.value for point in found.Scalars("step/loss")] == pytest.approx(losses)
    assert_nothing_personal(run_dir / "tensorboard")


def test_mlflow_has_the_run_and_a_resumed_one_goes_on(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, patient: None
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run_dir = make_run(report_to=["mlflow"])
    train.train(run_dir)
    assert not events(run_dir, "warning")

    client = mlflow.MlflowClient(tracking_uri=f"file:{tmp_path}/mlruns")
    experiment = client.get_experiment_by_name("starter")
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("starter@1", "FINISHED")
    assert run.data.params["loss"] == "kto"
    steps = client.get_metric_history(run.info.run_id, "step/loss")
    assert [point.step for point in steps] == [1, 2, 3, 4, 5, 6]
    assert json.loads((run_dir / reports.IDS).read_text()) == {"mlflow": run.info.run_id}
    assert_nothing_personal(tmp_path / "mlruns")

    config = TrainConfig.read(run_dir / "config.json")
    again = reports.Reports(run_dir, config, warn=pytest.fail)
    again.event("step", {"step": 7, "loss": 0.1})
    again.event("done", {})
    again.close()
    [same] = client.search_runs([experiment.experiment_id])
    steps = client.get_metric_history(same.info.run_id, "step/loss")
    assert [point.step for point in steps] == [1, 2, 3, 4, 5, 6, 7]


def test_weights_and_biases_has_the_run_offline(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, patient: None
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run_dir = make_run(report_to=["wandb"])
    train.train(run_dir)
    assert not events(run_dir, "warning")

    [written] = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    content = written.read_bytes()
    assert b"step/loss" in content
    assert_nothing_personal(run_dir / "wandb")


def assert_nothing_personal(directory: Path) -> None:
    for file in directory.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [text for text in PRIVATE if text.encode() in content], file
