"""The run settings that a person may change, with the values that were measured to work.

`docs/log.md` has the sweep. The trainer's own defaults are the same; a test holds them together.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import PurePosixPath
from typing import Any

from feedback_app.feedback.models import Project
from feedback_app.training.runs.settings import (
    BASE,
    BY_NAME,
    LIVE,
    LOSSES,
    PISSA,
    PISSA_MAX_RANK,
    SETTINGS,
    WITHOUT_BETA,
    WITHOUT_LAMBDA,
)
from feedback_app.web.errors import UserError

#: The labels of the settings in forms and messages.
LABELS = {setting.name: setting.label for setting in SETTINGS} | {"start_adapter": "Start from"}

#: The labels by the trainer's names that are not ordinary words as well.
NAMES = {
    name: label
    for name, label in LABELS.items()
    if name not in ("loss", "patience", "quantisation", "deterministic")
}

#: The lowest and the highest value of each number.
LIMITS = {setting.name: setting.bounds for setting in SETTINGS if setting.bounds is not None}

#: Settings that must have one of their choices.
CHOSEN = ("loss", "lr_schedule", "start_from", "target_modules", "lora_init", "dtype")

#: How the form and the command write gradient checkpointing.
CHECKPOINTING = {"": None, "on": True, "off": False}


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run.

    None means "by the rule" (λ), "off" (KL brake, early stopping), "automatic" (packs, gradient
    checkpointing) or "no" (quantisation). β is None for a loss without one. `start_from` is "base"
    or "live"; which version that is, is fixed when the run is requested. Raises UserError.
    """

    loss: str = "kto"
    beta: float | None = 0.5
    lambda_d: float | None = None
    lambda_u: float | None = None
    sft_weight: float = 0.0
    learning_rate: float = 2e-4
    batch_size: int = 16
    epochs: int = 2
    lr_schedule: str = "linear"
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    start_from: str = BASE
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    use_rslora: bool = False
    target_modules: str = "all"
    lora_init: str = "default"
    kl_brake: float | None = 0.5
    patience: int | None = 3
    max_length: int = 1024
    dtype: str = "auto"
    quantisation: str | None = None
    gradient_checkpointing: bool | None = None
    token_budget: int | None = None
    held_tokens: int | None = None
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        values = asdict(self)
        faults = [
            f"{LABELS[name]} is {values[name]:g}: choose {low:g} to {high:g}"
            for name, (low, high) in LIMITS.items()
            if values[name] is not None and not low <= values[name] <= high
        ]
        faults += [
            f"{LABELS[name]} cannot be {values[name]}"
            for name in CHOSEN
            if values[name] not in dict(BY_NAME[name].choices)
        ]
        faults += [f"{LABELS[name]}: {fault}" for name, fault in mismatches(values).items()]
        if faults:
            raise UserError("; ".join(faults).rstrip(".") + ".")

    @classmethod
    def stored(cls, config: Mapping[str, Any]) -> "RunConfig":
        """Build from a run's stored config, which may be of an earlier version."""
        known = {name: config[name] for name in RUN_FIELDS if name in config}
        start = {"start_from": LIVE if start_version(config) else BASE}
        return set_values(cls(), known | start)

    def as_json(self, *, start_adapter: str | None = None) -> dict[str, Any]:
        """Return what a run stores and the trainer reads. `start_adapter` is the directory of the
        version to start from."""
        values = asdict(self)
        del values["start_from"]
        if self.beta is None:
            del values["beta"]  # the trainer's default is there, and unused
        if not self.sft_weight:
            del values["sft_weight"]  # which trainers of earlier versions do not know
        return values if start_adapter is None else values | {"start_adapter": start_adapter}


def chat_settings(project: Project) -> dict[str, Any]:
    """Return the project's settings by which conversations and answers become tokens: a run stores
    those that it began with."""
    return {
        "chat_template_kwargs": project.chat_template_kwargs,
        "reasoning": str(project.reasoning),
    }


def set_values(config: RunConfig, given: Mapping[str, Any]) -> RunConfig:
    """Return a config with other values for some settings. Without a β among them, β follows the
    loss. Raises UserError."""
    values = {**asdict(config), **given}
    if given.get("beta") is None:
        known = RunConfig.beta if config.beta is None else config.beta
        values["beta"] = None if values["loss"] in WITHOUT_BETA else known
    return RunConfig(**values)


def mismatches(values: Mapping[str, Any]) -> dict[str, str]:
    """Return which settings contradict others, each with a sentence."""
    loss = values.get("loss")
    name = dict(LOSSES).get(str(loss), "")
    found = {}
    if loss in WITHOUT_BETA and values.get("beta") is not None:
        found["beta"] = f"{name} has no β. Leave it empty."
    if loss not in WITHOUT_BETA and "beta" in values and values["beta"] is None:
        found["beta"] = f"{name} needs a β."
    if loss in WITHOUT_BETA and values.get("sft_weight"):
        found["sft_weight"] = f"{name} is that loss already. Choose 0."
    if loss in WITHOUT_LAMBDA:
        for key in ("lambda_d", "lambda_u"):
            if values.get(key) is not None:
                found[key] = f"{name} has no class weights. Leave it empty."
    if values.get("lora_init") == PISSA:
        found |= _pissa_mismatches(values)
    return found


def _pissa_mismatches(values: Mapping[str, Any]) -> dict[str, str]:
    """Return which settings PiSSA excludes, each with a sentence; the trainer excludes them too."""
    found = {}
    if values.get("quantisation"):
        found["quantisation"] = (
            "PiSSA takes a part out of the base’s weights, which 4-bit holds packed. Leave one of "
            "them out."
        )
    if values.get("start_from") == LIVE:
        found["start_from"] = "PiSSA starts from the base model alone."
    if (values.get("lora_r") or 0) > PISSA_MAX_RANK:
        found["lora_r"] = (
            f"PiSSA saves an adapter of twice the rank: choose at most {PISSA_MAX_RANK}."
        )
    return found


def start_version(config: Mapping[str, Any]) -> str:
    """Return the version that a run with this stored config started from; empty for the base."""
    return PurePosixPath(config.get("start_adapter") or "").name


def form_initial(config: RunConfig) -> dict[str, Any]:
    """Return a config as the initial values of the form on the Train page."""
    checkpointing = {value: key for key, value in CHECKPOINTING.items()}
    given = checkpointing[config.gradient_checkpointing]
    return asdict(config) | {"gradient_checkpointing": given}


def form_values(config: RunConfig) -> dict[str, str]:
    """Return a config as a browser posts that form: nothing for a switch that is off."""
    return {
        name: "" if value is None else "on" if value is True else str(value)
        for name, value in form_initial(config).items()
        if value is not False
    }


def with_labels(text: str) -> str:
    """Replace the names that settings have in the trainer's messages by their labels."""
    return re.sub(r"\w+", lambda word: NAMES.get(word[0], word[0]), text)


RUN_FIELDS = tuple(field.name for field in fields(RunConfig))
