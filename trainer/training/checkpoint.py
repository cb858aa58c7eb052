"""Checkpoints: master weights, optimiser state and position, written atomically.

The random numbers of a step depend on (seed, step) alone, so the position is their whole state.
safetensors and JSON only: resuming unpickles nothing.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.artifacts.adapter_directory import file_sha256, fsync
from trainer.errors import Refused

KEPT = 2
_TENSORS = "state.safetensors"
_STATE = "state.json"
_BEST = "best.safetensors"


@dataclass(frozen=True)
class Fit:
    """A training example's reward r and the step's z₀, in nats."""

    id: str
    label: bool
    reward: float
    z0: float


@dataclass(frozen=True)
class Position:
    """A checkpoint without its tensors. `identity` names config and examples; `fit` holds the
    current epoch so far; `best` is the best adapter of the probes (step, loss, worse);
    `mean_reward` the running mean that BCO compares with; `loss_scale` the state of float16's loss
    scaling."""

    identity: str
    step: int
    seconds: float
    fit: tuple[Fit, ...]
    best: dict[str, Any] | None
    mean_reward: float | None = None
    loss_scale: dict[str, Any] | None = None


def save_checkpoint(
    directory: Path,
    position: Position,
    *,
    masters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write `directory/step-<n>` through a temporary sibling and drop all but the last two."""
    final = directory / f"step-{position.step:08d}"
    partial = directory / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        tensors = {f"master/{name}": tensor.detach().cpu() for name, tensor in masters.items()}
        for name, tensor in masters.items():
            for key, value in optimizer.state.get(tensor, {}).items():
                tensors[f"{key}/{name}"] = torch.as_tensor(value).detach().cpu()
        save_file(tensors, partial / _TENSORS)
        state = {**asdict(position), "sha256": file_sha256(partial / _TENSORS)}
        (partial / _STATE).write_text(json.dumps(state), encoding="utf-8")
        for file in (_TENSORS, _STATE):
            fsync(partial / file)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        fsync(directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for old in _newest_first(directory)[KEPT:]:
        shutil.rmtree(old)


def load_checkpoint(
    directory: Path,
    *,
    identity: str,
    masters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> Position | None:
    """Restore the newest whole checkpoint into masters and optimiser; None when there is none.

    A checkpoint that was damaged on disk is passed over for the one before. Raises Refused when
    the checkpoints belong to another config or other examples.
    """
    for path in _newest_first(directory):
        found = _read(path)
        if found is None:
            continue
        position, tensors = found
        if position.identity != identity:
            raise Refused(
                "config.json or examples.jsonl changed since this run began: start a new run "
                "directory instead of resuming this one"
            )
        for name, master in masters.items():
            master.data.copy_(tensors[f"master/{name}"])
            if f"step/{name}" in tensors:
                optimizer.state[master] = {
                    key: tensors[f"{key}/{name}"].to(master.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
        return position
    return None


def kept_masters(directory: Path, *, up_to: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield step and master weights of each whole checkpoint up to a step, newest first."""
    for path in _newest_first(directory):
        found = _read(path)
        if found is not None and found[0].step <= up_to:
            prefix = "master/"
            tensors = {k.removeprefix(prefix): v for k, v in found[1].items() if prefix in k}
            yield found[0].step, tensors


def save_best(directory: Path, masters: Mapping[str, Tensor], *, step: int) -> None:
    """Keep the adapter that a probe liked best, in place of the one before."""
    partial = directory / f".{_BEST}.partial"
    metadata = {"step": str(step)}
    save_file({key: value.detach().cpu() for key, value in masters.items()}, partial, metadata)
    fsync(partial)
    partial.rename(directory / _BEST)
    fsync(directory)


def load_best(directory: Path) -> tuple[dict[str, Tensor], int]:
    """Return the adapter kept last, and its step."""
    with safe_open(directory / _BEST, framework="pt") as file:
        step = int(file.metadata()["step"])
        return {key: file.get_tensor(key) for key in file.keys()}, step  # noqa: SIM118


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*"), reverse=True)


def _read(path: Path) -> tuple[Position, dict[str, Tensor]] | None:
    try:
        state: dict[str, Any] = json.loads((path / _STATE).read_bytes())
        if file_sha256(path / _TENSORS) != state.pop("sha256"):
            return None
        fit = tuple(Fit(**item) for item in state.pop("fit"))
        return Position(**state, fit=fit), load_file(path / _TENSORS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
