"""Presets of the run settings, and the learning rate and rank that suit a base model's size.

| parameters | learning rate | rank, α | β | source |
|---|---|---|---|---|
| below 1 billion | 2e-4 | 16, 32 | 0.5 | our sweep on 135 million (docs/log.md) |
| 1 to 4 billion | 5e-5 | 16, 32 | 0.1 | between its neighbours; not measured here |
| from 4 billion | 5e-6 | 16, 16 | 0.1 | LLaMA-Factory's KTO of Llama 3 8B with LoRA, rate and β |
| | | | | (examples/train_lora/llama3_lora_kto.yaml); rate, rank and α also of the |
| | | | | Zephyr 7B DPO QLoRA recipe of the alignment handbook |

TRL trains all weights of models of these sizes with KTO at 5e-7 to 1e-6 and β 0.1; LoRA takes
about ten times the rate. These are starting points: the gate decides what was learned.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from feedback_app.training.runs.config import RunConfig


@dataclass(frozen=True)
class Size:
    """Settings for base models of fewer than `below` parameters."""

    below: float
    settings: Mapping[str, Any] = field(default_factory=dict)


SIZES = (
    Size(1e9),
    Size(4e9, {"learning_rate": 5e-5, "beta": 0.1}),
    Size(float("inf"), {"learning_rate": 5e-6, "beta": 0.1, "lora_alpha": 16}),
)


@dataclass(frozen=True)
class Preset:
    """Named settings. `rate` multiplies the learning rate of the model's size."""

    key: str
    label: str
    help: str
    rate: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)


PRESETS = (
    Preset("default", "Default", "For the size of the base model."),
    Preset(
        "gentle",
        "Gentle",
        "Half the learning rate, one epoch and an earlier brake.",
        rate=0.5,
        settings={"epochs": 1, "kl_brake": 0.25},
    ),
    Preset(
        "strong",
        "Strong",
        "Twice the learning rate, three epochs and a later brake.",
        rate=2.0,
        settings={"epochs": 3, "kl_brake": 1.0},
    ),
    Preset(
        "low-memory",
        "Low memory",
        "A smaller adapter, small packs and gradient checkpointing.",
        settings={
            "batch_size": 8,
            "lora_r": 8,
            "lora_alpha": 16,
            "token_budget": 1024,
            "held_tokens": 0,
            "gradient_checkpointing": True,
        },
    ),
)
BY_KEY = {preset.key: preset for preset in PRESETS}

_COUNT = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", re.IGNORECASE)


def parameters_of(base_model: str) -> float | None:
    """Return the number of parameters that the model's name states, as in Qwen2.5-7B-Instruct."""
    found = _COUNT.findall(base_model.rpartition("/")[2])
    if not found:
        return None
    count, unit = found[-1]
    return float(count) * (1e9 if unit.upper() == "B" else 1e6)


def preset_config(preset: Preset, base_model: str) -> RunConfig:
    """Return the preset's settings for a base model; one of unknown size counts as small."""
    parameters = parameters_of(base_model) or 0.0
    size = next(size for size in SIZES if parameters < size.below)
    rate = preset.rate * size.settings.get("learning_rate", RunConfig.learning_rate)
    return RunConfig(**{**size.settings, **preset.settings, "learning_rate": rate})
