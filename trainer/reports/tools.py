"""The tools that get a run's figures, each by its own package and its own environment variables."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

#: Tools by the name that `report_to` gives them, and the package of each.
REPORTERS = {"tensorboard": "tensorboard", "mlflow": "mlflow-skinny", "wandb": "wandb"}


class Reporter(Protocol):
    """One tool, for one run. Any method may raise whatever its package does."""

    def log(self, step: int, figures: Mapping[str, float]) -> None: ...

    def end(self, status: str) -> None: ...


class TensorBoard:
    """Writes event files: `tensorboard --logdir RUN_DIR/tensorboard`."""

    def __init__(self, run_dir: Path, settings: Mapping[str, Any], ids: dict[str, str]) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer: Any = SummaryWriter(run_dir / "tensorboard")
        self._writer.add_text("settings", json.dumps(settings, indent=1))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, status: str) -> None:
        self._writer.close()


class MLflow:
    """Writes to MLFLOW_TRACKING_URI: a run of the experiment that has the project's name."""

    def __init__(self, run_dir: Path, settings: Mapping[str, Any], ids: dict[str, str]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._client: Any = MlflowClient()
        self._metric: Any = Metric
        if "mlflow" not in ids:
            name = str(settings["adapter_name"])
            project = name.partition("@")[0]
            known = self._client.get_experiment_by_name(project)
            experiment = known.experiment_id if known else self._client.create_experiment(project)
            run = self._client.create_run(experiment, run_name=name)
            ids["mlflow"] = run.info.run_id
            params = [Param(key, str(value)) for key, value in settings.items()]
            self._client.log_batch(ids["mlflow"], params=params)
        self._run = ids["mlflow"]

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(name, value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def end(self, status: str) -> None:
        self._client.set_terminated(self._run, status)


class WeightsAndBiases:
    """Writes to the project of the same name; WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, run_dir: Path, settings: Mapping[str, Any], ids: dict[str, str]) -> None:
        import wandb

        name = str(settings["adapter_name"])
        ids.setdefault("wandb", token_hex(8))
        self._run: Any = wandb.init(
            project=name.partition("@")[0],
            name=name,
            id=ids["wandb"],
            resume="allow",
            config=dict(settings),
            dir=str(run_dir),
            # nothing of this machine: no console, no code, no use of its devices
            settings=wandb.Settings(console="off", disable_git=True, x_disable_stats=True),
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def end(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "FINISHED" else 1)


TOOLS: dict[str, Callable[[Path, Mapping[str, Any], dict[str, str]], Reporter]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}
