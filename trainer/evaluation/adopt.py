"""`python -m trainer adopt RUN_DIR`: take an adapter of another tool over, verified.

`config.json` names the base model, the adapter's name and the directory with the two files of PEFT
(`imported`). Their settings and every matrix are checked against the base model's layers; then
`adapter/` is written as a trained run writes it. Nothing is unpickled.
"""

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from trainer.artifacts.adapter_checks import config_faults, tensor_faults
from trainer.artifacts.adapter_directory import (
    CONFIG,
    MANIFEST,
    WEIGHTS,
    Manifest,
    file_sha256,
    verify_adapter,
    write_adapter,
)
from trainer.artifacts.environment import hardware, libraries
from trainer.artifacts.model_card import base_licence, licence_identifier
from trainer.config import MAX_RANK, read_json
from trainer.directory_lock import locked
from trainer.disk import disk_errors_reported
from trainer.errors import BadArtifact, Refused, TrainerError
from trainer.events import EventLog
from trainer.models.layers import layer_shapes
from trainer.models.loading import LoadedBase, load_base
from trainer.models.lora import adapted_layers

ADVICE = "Nothing was stored. Repair the adapter and import it again"
#: What is kept of PEFT's settings; the rest does not change what is computed.
KEPT = ("r", "lora_alpha", "lora_dropout", "use_rslora", "fan_in_fan_out")


def adopt(run_dir: Path) -> None:
    """Write `adapter/` and an empty `fit.jsonl`; done already, it does nothing.

    Raises Refused with every fault, which is in events.jsonl as well.
    """
    with (
        disk_errors_reported(run_dir),
        locked(run_dir),
        EventLog(run_dir / "events.jsonl") as events,
    ):
        try:
            with disk_errors_reported(run_dir):
                manifest = _known(run_dir / "adapter") or _adopt(run_dir, events)
        except TrainerError as error:
            with suppress(OSError):
                events.write("failed", step=None, reason=str(error), advice=ADVICE)
            raise
        (run_dir / "fit.jsonl").write_text("", encoding="utf-8")
        events.write_once("done", adapter=str(run_dir / "adapter"), sha256=manifest.sha256)


def _known(adapter: Path) -> Manifest | None:
    """Return the manifest of an adapter that an earlier attempt has written."""
    if not (adapter / MANIFEST).exists():
        return None
    with suppress(BadArtifact):
        return verify_adapter(adapter, base_fingerprint=None, max_rank=MAX_RANK)
    return None


def _adopt(run_dir: Path, events: EventLog) -> Manifest:
    config = read_json(run_dir / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("imported"), str):
        raise Refused("config.json names no adapter to take over")
    source = Path(config["imported"])
    _files_check(source)
    events.write("phase", phase="loading", done=0, total=1)
    base = load_base(str(config["base_model"]), device="cpu")
    settings, tensors = read_foreign(source, base)
    return write_adapter(
        run_dir / "adapter",
        name=str(config["adapter_name"]),
        tensors=tensors,
        adapter_config=adopted_config(settings, tensors, str(config["base_model"])),
        base_model=str(config["base_model"]),
        base_sha256=base.fingerprint,
        rank=settings["r"],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        train={
            "imported": {"sha256": file_sha256(source / WEIGHTS)},
            "libraries": libraries(),
            "hardware": hardware(),
        },
        card=card(str(config["adapter_name"]), str(config["base_model"]), base.fingerprint),
    )


def _files_check(source: Path) -> None:
    """Raise BadArtifact unless the two files are regular ones: opening a link or a device is how a
    check becomes the attack."""
    faults = []
    for name in (CONFIG, WEIGHTS):
        try:
            mode = os.lstat(source / name).st_mode
        except OSError:
            faults.append(f"{name} is missing")
            continue
        if not stat.S_ISREG(mode):
            faults.append(f"{name} is not a regular file")
    if faults:
        raise BadArtifact(*faults)


def read_foreign(source: Path, base: LoadedBase) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return PEFT's settings and the matrices. Raises BadArtifact with every fault."""
    settings = read_json(source / CONFIG)
    if not isinstance(settings, dict):
        raise BadArtifact(f"{CONFIG} must hold a JSON object")
    rank, faults = config_faults(settings, max_rank=MAX_RANK)
    faults = [f"{CONFIG}: {fault}" for fault in faults]
    faults += tensor_faults(source / WEIGHTS, rank=rank, shapes=layer_shapes(base.model))
    if faults:
        raise BadArtifact(*faults)
    return settings, load_file(source / WEIGHTS)


def adopted_config(
    settings: Mapping[str, Any], tensors: Mapping[str, Tensor], base_model: str
) -> dict[str, Any]:
    """Return adapter_config.json: what is computed, and the layers that have matrices."""
    return {
        **{name: settings[name] for name in KEPT if settings.get(name) is not None},
        "base_model_name_or_path": base_model,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "peft_type": "LORA",
        "target_modules": sorted({layer.rpartition(".")[2] for layer in adapted_layers(tensors)}),
        "task_type": "CAUSAL_LM",
    }


def card(name: str, base_model: str, fingerprint: str) -> str:
    """Return README.md of an adapter about whose training nothing is known."""
    licence = base_licence(base_model)
    return f"""---
base_model: {json.dumps(base_model)}
library_name: peft
license: {licence_identifier(licence)}
tags: [lora]
---

# {name}

A LoRA adapter for `{base_model}` that was trained elsewhere and imported. What it learned from is
not recorded. Base model: fingerprint `{fingerprint}`, licence {licence}.
"""
