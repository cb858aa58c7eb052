"""One cell of a study: an adapter trained on some examples, and what it then writes.

A cell is known by its content, so that one that occurs in several studies, or that an interrupted
run has finished, is not computed again.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bench.evidence.pool import WORK, answers_of, base_model, unseen_prompts
from bench.gate.planted import processor
from trainer.artifacts.merge import merge
from trainer.data.examples import Example, write_examples
from trainer.errors import RunFailed
from trainer.training.train import train

CELLS = WORK / "cells"
#: What every cell is trained with unless its study says otherwise. No brake and no early stopping:
#: a study shows what a setting does, not what protects from it.
SETTINGS: dict[str, Any] = {
    "loss": "kto",
    "beta": 0.5,
    "learning_rate": 1e-3,
    "epochs": 1,
    "batch_size": 8,
    "lora_r": 8,
    "lora_alpha": 16,
    "kl_brake": None,
    "patience": None,
    "probe_every": 1000,
    "checkpoint_every": 1000,
}


@dataclass(frozen=True)
class Cell:
    """What decides an adapter. Without examples it is the base itself. `start` is the version whose
    merged weights training starts from, None for the base."""

    seed: int
    examples: tuple[Example, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    start: "Cell | None" = None

    @property
    def key(self) -> str:
        # ids differ from database to database
        examples = [{**example.as_dict(), "id": ""} for example in self.examples]
        start = self.start.key if self.start else ""
        content = [self.seed, examples, {**SETTINGS, **self.settings}, start]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Outcome:
    """What a cell gave: an answer to each unseen prompt, or why the training failed; and on which
    processor."""

    texts: list[str]
    finished: list[bool]
    processor: str
    failure: str = ""


def outcome(cell: Cell) -> Outcome:
    """Return the outcome of a cell, computed once."""
    path = CELLS / f"{cell.key}.json"
    if not path.exists():
        CELLS.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(_computed(cell))))
        partial.replace(path)
    raw = json.loads(path.read_text())
    return Outcome(**{one.name: raw[one.name] for one in fields(Outcome)})


def _computed(cell: Cell) -> Outcome:
    try:
        model, adapter = version_of(cell)
    except RunFailed as error:
        return Outcome([], [], processor(), str(error))
    answers = answers_of(unseen_prompts(), seed=500 + cell.seed, model=model, adapter=adapter)
    return Outcome(
        texts=[one.answer.text for one in answers],
        finished=[one.answer.finish_reason == "stop" for one in answers],
        processor=processor(),
    )


def version_of(cell: Cell) -> tuple[Path, Path | None]:
    """Return the base model and the adapter of a cell, trained if need be. Raises RunFailed."""
    start = base_model() if cell.start is None else merged(cell.start)
    if not cell.examples:
        return start, None
    directory = WORK / "runs" / cell.key
    if not directory.exists():
        directory.mkdir(parents=True)
        config = {
            **SETTINGS,
            **cell.settings,
            "base_model": str(start),
            "adapter_name": "study@1",
            "seed": cell.seed,
            # what a merged model is stored in: bfloat16 would round its adapter away
            "dtype": "float32" if cell.start else "auto",
            "reference_cache": str(WORK / "reference"),
        }
        numbered = [replace(one, id=str(number)) for number, one in enumerate(cell.examples)]
        write_examples(directory / "examples.jsonl", numbered)
        (directory / "config.json").write_text(json.dumps(config, indent=1))
    train(directory)
    return start, directory / "adapter"


def merged(cell: Cell) -> Path:
    """Return the directory of a cell's version as a model of its own, in float32: in bfloat16 the
    small changes of an adapter would be rounded away."""
    directory = WORK / "merged" / cell.key
    if not directory.exists():
        model, adapter = version_of(cell)
        if adapter is None:
            return model
        directory.parent.mkdir(parents=True, exist_ok=True)
        merge(str(model), adapter, directory, dtype="float32")
    return directory


def tidy() -> None:
    """Remove models and runs; outcomes, votes and the pool stay."""
    for name in ("runs", "merged"):
        shutil.rmtree(WORK / name, ignore_errors=True)
