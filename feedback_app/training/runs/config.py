"""The run settings that a person may change, with the values that were measured to work.

`docs/log.md` has the sweep. The trainer's own defaults are the same; a test holds them together.
"""

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from feedback_app.web.errors import UserError

#: The labels of the settings in forms and messages.
LABELS = {
    "epochs": "Epochs",
    "batch_size": "Batch",
    "learning_rate": "Learning rate",
    "beta": "β",
    "lora_r": "LoRA rank",
    "kl_brake": "KL brake",
    "seed": "Seed",
}


#: The lowest and the highest value of each setting.
LIMITS: dict[str, tuple[float, float]] = {
    "learning_rate": (1e-7, 1e-2),
    "beta": (0.01, 5),
    "batch_size": (2, 256),
    "epochs": (1, 20),
    "lora_r": (1, 256),
    "kl_brake": (0.01, 10),
    "seed": (0, 2**31 - 1),
}


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run. λ is not one: it follows from the snapshot's example weights."""

    learning_rate: float = 2e-4
    beta: float = 0.5
    batch_size: int = 16
    epochs: int = 2
    lora_r: int = 16
    kl_brake: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        faults = [
            f"{LABELS[name]} is {getattr(self, name):g}: choose {low:g} to {high:g}"
            for name, (low, high) in LIMITS.items()
            if not low <= getattr(self, name) <= high
        ]
        if faults:
            raise UserError("; ".join(faults) + ".")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def with_labels(text: str) -> str:
    """Replace the names that settings have in the trainer's messages by their labels."""
    return re.sub(r"\w+", lambda word: LABELS.get(word[0], word[0]), text)


RUN_FIELDS = tuple(field.name for field in fields(RunConfig))
