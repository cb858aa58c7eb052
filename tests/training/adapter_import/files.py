"""Adapters as others write them, without torch."""

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": "someone/SmolLM2-135M-Instruct",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
}
SHAPES = {f"{MODULE}.lora_A.weight": [2, 8], f"{MODULE}.lora_B.weight": [6, 2]}


def safetensors(
    shapes: dict[str, list[int]] = SHAPES, *, dtype: Any = "F32", cut: int = 0, gap: int = 0
) -> bytes:
    """Return a safetensors file of noughts; `cut` bytes are missing at its end, `gap` bytes lie
    between two tensors."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = 4
        for number in shape:
            size *= number
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}  # type: ignore[dict-item]
        end += size + gap
    text = json.dumps(header).encode()
    whole = struct.pack("<Q", len(text)) + text + bytes(end)
    return whole[: len(whole) - cut]


def files(config: dict[str, Any] | None = None, weights: bytes | None = None) -> dict[str, bytes]:
    return {
        "adapter_config.json": json.dumps(CONFIG | (config or {})).encode(),
        "adapter_model.safetensors": safetensors() if weights is None else weights,
    }


def archive(content: dict[str, bytes]) -> io.BytesIO:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in content.items():
            target.writestr(name, data)
    packed.seek(0)
    return packed


def write(directory: Path, content: dict[str, bytes] | None = None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in (files() if content is None else content).items():
        (directory / name).write_bytes(data)
    return directory
