"""Checks of an adapter's two files that need neither torch nor the base model.

They answer at once what an upload can be refused for; the worker then compares every matrix with
the base model's layers (trainer/evaluation/adopt.py).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from feedback_app.training.adapter_import.archive import CONFIG, CONFIG_BYTES, WEIGHTS, refuse
from feedback_app.training.runs.config import LIMITS

#: Bytes of the types that are read.
TYPES = {"F32": 4, "F16": 2, "BF16": 2}
HEADER_BYTES = 10_000_000
TENSORS_MOST = 20_000
TENSOR = re.compile(r"base_model\.model\.(?P<module>[A-Za-z0-9_.]+)\.lora_(?P<side>[AB])\.weight")
FAULTS_SHOWN = 10


@dataclass(frozen=True)
class ForeignAdapter:
    """What an adapter's configuration says of it."""

    rank: int
    alpha: float
    rslora: bool


def adapter_checked(directory: Path, *, base_model: str) -> ForeignAdapter:
    """Return what the adapter is. Raises UserError with its faults, and what to do about them."""
    config, faults = config_read(directory / CONFIG)
    faults += config_faults(config, base_model)
    rank = config.get("r")
    header, more = header_read(directory / WEIGHTS)
    faults += more
    if not more:
        faults += tensor_faults(header, rank if isinstance(rank, int) else None)
    if len(faults) > FAULTS_SHOWN:
        faults = [*faults[:FAULTS_SHOWN], f"and {len(faults) - FAULTS_SHOWN} more"]
    refuse(faults)
    return ForeignAdapter(int(config["r"]), config["lora_alpha"], bool(config.get("use_rslora")))


def config_read(path: Path) -> tuple[dict[str, Any], list[str]]:
    if path.stat().st_size > CONFIG_BYTES:
        return {}, [f"{CONFIG} is larger than {CONFIG_BYTES / 1e6:.0f} MB"]
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}, [f"{CONFIG} is no JSON"]
    if not isinstance(found, dict):
        return {}, [f"{CONFIG} must hold a JSON object"]
    return found, []


def config_faults(config: Mapping[str, Any], base_model: str) -> list[str]:
    """Return what the configuration says that does not fit this project."""
    if not config:
        return []
    faults = []
    if config.get("peft_type") != "LORA":
        faults.append(f"peft_type is {config.get('peft_type')!r}: only LoRA adapters are served")
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or model_name(named) != model_name(base_model):
        faults.append(
            f"it was trained on {named!r}, and this project's base model is {base_model!r}: import "
            "it into a project with its base model"
        )
    low, high = LIMITS["lora_r"]
    rank = config.get("r")
    if isinstance(rank, bool) or not isinstance(rank, int) or not low <= rank <= high:
        faults.append(f"r is {rank!r}: it must be a whole number from {low:g} to {high:g}")
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 10_000:
        faults.append(f"lora_alpha is {alpha!r}: it must be a positive number")
    if config.get("use_dora"):
        faults.append("it is a DoRA adapter: merge it, or train one without use_dora")
    return faults


def model_name(model: str) -> str:
    """Return a model's name without its owner or directory."""
    return PurePosixPath(model.rstrip("/")).name.casefold()


def header_read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the tensors that a safetensors file describes, and why it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(HEADER_BYTES, size - 8):
            return {}, [f"{WEIGHTS} is no safetensors file"]
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return {}, [f"{WEIGHTS} has no readable header"]
    if not isinstance(header, dict) or len(header) > TENSORS_MOST:
        return {}, [f"{WEIGHTS} has no readable header"]
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if not tensors:
        return {}, [f"{WEIGHTS} holds no tensors"]
    if not filled(tensors, size - 8 - length):
        return {}, [f"{WEIGHTS} is cut off or damaged: its tensors do not fill it"]
    return tensors, []


def filled(tensors: Mapping[str, Any], size: int) -> bool:
    """Return whether the tensors lie one behind the other in the file, without gaps."""
    spans = []
    for entry in tensors.values():
        span = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not (isinstance(span, list) and len(span) == 2 and all(type(n) is int for n in span)):
            return False
        spans.append(tuple(span))
    end = 0
    for start, stop in sorted(spans):
        if start != end or stop < start:
            return False
        end = stop
    return end == size


def tensor_faults(tensors: Mapping[str, Any], rank: int | None) -> list[str]:
    """Return which tensors are no LoRA matrices of this rank, and which lack their partner."""
    faults: list[str] = []
    sides: dict[str, set[str]] = {}
    for name, entry in sorted(tensors.items()):
        match = TENSOR.fullmatch(name)
        if match is None:
            faults.append(f"{name[:120]!r} is no LoRA matrix")
            continue
        sides.setdefault(match["module"], set()).add(match["side"])
        faults += matrix_faults(name, entry, match["side"], rank)
    faults += [
        f"{module} lacks lora_{'B' if 'A' in found else 'A'}"
        for module, found in sides.items()
        if len(found) != 2
    ]
    return faults


def matrix_faults(name: str, entry: Mapping[str, Any], side: str, rank: int | None) -> list[str]:
    kind, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(kind, str) or kind not in TYPES:
        return [f"{name} has the type {kind!r}: save it as float32, float16 or bfloat16"]
    if not isinstance(shape, list) or len(shape) != 2 or any(type(n) is not int for n in shape):
        return [f"{name} is no matrix"]
    start, stop = entry["data_offsets"]
    if min(shape) < 1 or stop - start != shape[0] * shape[1] * TYPES[kind]:
        return [f"{name} has a shape that does not fit its bytes"]
    if rank is not None and shape[0 if side == "A" else 1] != rank:
        return [f"{name} has the shape {shape}, which does not fit the rank {rank}"]
    return []
