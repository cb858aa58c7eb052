"""The files that the trainer reads: configuration, examples, base model."""

import json
import shutil
from pathlib import Path
from typing import Any

from django.conf import settings

from feedback_app.artifacts import artifact_store, tree_discard
from feedback_app.training.gate.evaluation import TEST_FILE, VOTES_FILE, evaluation_directory
from feedback_app.training.models import Run
from feedback_app.training.snapshots.files import SPLIT_FILES, examples_write, snapshot_write


def prepare(run: Run) -> None:
    """Write the trainer's input. The same rows give the same files, so it can be repeated."""
    restart_if_outdated(run.directory)
    # left by an attempt that was interrupted in the evaluation: while a process trains, no file
    # holds the test split
    (evaluation_directory(run) / TEST_FILE).unlink(missing_ok=True)
    if not run.trains:
        votes_write(run)
    elif not (run.directory / "examples.jsonl").exists():
        snapshot_write(run.snapshot, run.directory)
    path = run.directory / "config.json"
    config = {
        **run.config,
        "base_model": model_path(run.project.base_model),
        "adapter_name": run.project.adapter_name(run.number),
        "reference_cache": reference_cache(run),
    }
    if not run.trains:
        config["imported"] = str(artifact_store().path(run.config["imported"]))
    if tools := report_tools(path):
        config["report_to"] = tools
    if shares_base(path):
        config["fsdp"] = True
    write_json(path, config)


def votes_write(run: Run) -> None:
    """Write the project's votes, by which the gate predicts up-rates, for a version that learned
    from none of them. They are removed when it is judged (`imported_remove`)."""
    run.directory.mkdir(parents=True, exist_ok=True)
    for split, name in SPLIT_FILES.items():
        examples_write(run.project, split, run.directory / name)


def imported_remove(run: Run) -> None:
    """Remove what `votes_write` wrote, the gate's sample of it, and the files that the version was
    imported from: no snapshot says whose votes they are, so no erasure would find them."""
    for name in SPLIT_FILES.values():
        (run.directory / name).unlink(missing_ok=True)
    (evaluation_directory(run) / VOTES_FILE).unlink(missing_ok=True)
    tree_discard(str(run.config["imported"]))


def reference_cache(run: Run) -> str | None:
    """Return the directory of reference log-probabilities that all runs share, so that those of old
    examples are not computed again.

    None with an object store: then each run has its own, which begins with that of the run before
    (storage.py), and travels with its checkpoints. None after an erasure as well: such a run takes
    nothing over from runs before it: its bytes are those of a run that never had what was erased.
    """
    if artifact_store().remote or run.retrains_id is not None:
        return None
    return str(Path(settings.ARTIFACT_ROOT) / "reference")


def report_tools(path: Path) -> list[str]:
    """Return the tools that get the figures of a run; like `shares_base`, those it began with."""
    if path.exists():
        return list(json.loads(path.read_text()).get("report_to", []))
    return list(settings.TRAINER_REPORT_TO)


def shares_base(path: Path) -> bool:
    """Return whether the processes of a run share one copy of the base model.

    A run keeps what it began with: a checkpoint fits only the configuration it was made with.
    """
    if path.exists():
        return bool(json.loads(path.read_text()).get("fsdp", False))
    return bool(settings.TRAINER_FSDP)


def restart_if_outdated(directory: Path) -> None:
    """Remove the files of a run that an earlier version began, so that it starts over.

    Before there was a validation split, training chose its adapter by heldout.jsonl, and part of
    those examples are test examples now. An adapter or checkpoint from then would be judged by what
    it was chosen by.
    """
    outdated = directory / "heldout.jsonl"
    if not outdated.exists():
        return
    for name in ("adapter", "checkpoints", "evaluation"):
        shutil.rmtree(directory / name, ignore_errors=True)
    (directory / "examples.jsonl").unlink(missing_ok=True)
    outdated.unlink()  # last, so that an interrupted removal is repeated


def model_path(base_model: str) -> str:
    """Return the path of a local base model if it exists, else its hub id."""
    local = Path(settings.MODELS_ROOT) / base_model
    return str(local) if local.is_dir() else base_model


def write_json(path: Path, data: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(data, indent=1))
    partial.replace(path)
