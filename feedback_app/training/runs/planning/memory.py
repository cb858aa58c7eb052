"""The memory that a run needs on its worker, from what a worker has measured of its device."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from feedback_app.feedback.models import Figures, Project
from feedback_app.training.runs.config import RunConfig

NAME = "run_memory"
#: An older measurement is repeated when a page shows it: examples have become longer, or the
#: device is another.
FRESH = dt.timedelta(hours=1)
#: Share of the memory that a run may fill (trainer/planning/packs.py).
USABLE = 0.9


@dataclass(frozen=True)
class RunMemory:
    """What a run needs of each device, in bytes, and what there is; `free` is None for a CPU, whose
    memory other processes share."""

    needed: int
    total: int
    free: int | None
    devices: int

    @property
    def fits(self) -> bool:
        return self.needed <= USABLE * (self.total if self.free is None else self.free)


def memory_measured(project: Project) -> Mapping[str, Any] | None:
    """Return what a worker has measured for the project's base model (measuring.py), and have it
    measured again if it is old; None before that. It is empty where no worker can."""
    row, _ = Figures.objects.get_or_create(project=project, name=NAME)
    known = row.value if row.value and row.value["base_model"] == project.base_model else None
    old = row.counted_at is not None and row.counted_at < timezone.now() - FRESH
    if row.status == Figures.Status.DONE and (old or known is None) and not project.archived_at:
        Figures.objects.filter(pk=row.pk, status=Figures.Status.DONE).update(
            status=Figures.Status.QUEUED
        )
    return known and known["footprint"]


def memory_of(found: Mapping[str, Any], config: RunConfig, *, examples: int) -> RunMemory | None:
    """Return what a run with these settings on so many examples needs; None where that is unknown.

    The estimate is that of `python -m trainer plan` for the longest examples in one batch, so that
    it is seldom exceeded.
    """
    if not found or not found["lengths"] or found["total"] is None:
        return None
    lengths = batch_lengths(found["lengths"], config, examples)
    needed = 0
    for packs in found["packs"]:
        ways = [way for way in found["ways"] if same_way(way, config, packs)]
        if not ways:
            return None
        budget, held = packs_given(packs, config, waits=config.loss in found["waits"])
        load = load_of(lengths, budget, held, found["devices"])
        needed = way_bytes(ways[0], config.lora_r, *load)
        # chosen as the trainer does, before it knows how long the examples are
        whole = way_bytes(ways[0], config.lora_r, max(budget, held, config.max_length), 0)
        if found["free"] is None or whole <= USABLE * found["free"]:
            break
    return RunMemory(needed, found["total"], found["free"], found["devices"])


def batch_lengths(longest: list[int], config: RunConfig, examples: int) -> list[int]:
    """Return the lengths of the longest examples that one batch may hold, in tokens. Beyond those
    that were measured, each counts like the shortest of them."""
    size = max(1, min(config.batch_size, examples))
    known = longest[:size]
    known += [known[-1]] * (size - len(known))
    return [min(length, config.max_length) for length in known]


def load_of(lengths: list[int], budget: int, held: int, devices: int) -> tuple[int, int]:
    """Return the tokens that wait for their gradient on one device, at most, and the pairs of
    positions that attend to each other (trainer/planning/peak_memory.py)."""
    batch = sum(lengths)
    mine = max(lengths[0], -(-batch // devices))
    waiting = min(mine, held)
    tokens = mine if mine <= held else max(waiting, min(mine, max(budget, lengths[0])))
    squares = sum(length * length for length in lengths)
    return tokens, round(squares * tokens / batch)


def packs_given(packs: Mapping[str, Any], config: RunConfig, *, waits: bool) -> tuple[int, int]:
    """Return the tokens of a pack and those that are held, of these packs where the config leaves
    them open."""
    budget = packs["token_budget"] if config.token_budget is None else config.token_budget
    held = packs["held_tokens"] if config.held_tokens is None else config.held_tokens
    return budget, held if waits and config.lora_dropout == 0 else 0


def same_way(way: Mapping[str, Any], config: RunConfig, packs: Mapping[str, Any]) -> bool:
    checkpointing = config.gradient_checkpointing
    if checkpointing is None:
        checkpointing = packs["gradient_checkpointing"]
    return bool(
        way["dtype"] == config.dtype
        and way["quantisation"] == (config.quantisation or None)
        and way["gradient_checkpointing"] == checkpointing
    )


def way_bytes(way: Mapping[str, float], rank: int, tokens: int, pairs: int) -> int:
    """Return the bytes of one device by the formula of trainer/planning/footprint.py."""
    each = way["token"] + way["token_rank"] * rank
    return round(way["fixed"] + way["rank"] * rank + each * tokens + way["pair"] * pairs)
