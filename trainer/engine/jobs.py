"""Messages between the model's thread and the others."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trainer.engine.batch import FinishReason
from trainer.engine.sampling import Sampling, TokenScore
from trainer.errors import TrainerError


class QueueFull(TrainerError):
    """The queue is full; try again later."""


class UnknownModel(TrainerError):
    """No base model or adapter of this name is loaded."""


class Stopped(TrainerError):
    """The engine is shutting down."""


@dataclass(frozen=True)
class Piece:
    """The result of one step: a token, the text that is final now, and at the end the reason.

    `error` instead of a finish reason: the answer failed.
    """

    token_ids: tuple[int, ...] = ()
    text: str = ""
    finish_reason: FinishReason | None = None
    error: str | None = None
    score: TokenScore | None = None


@dataclass(eq=False)
class Job:
    """One request. `deliver` is called from the model's thread and must not block.

    `moved` is the time of its last progress: queued, then each token (seconds of perf_counter).
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    model: str
    deliver: Callable[[Piece], None]
    adapter: "Held | None" = None
    cancelled: bool = False
    moved: float = field(default_factory=time.perf_counter)


@dataclass(eq=False)
class Held:
    """A loaded adapter, the number of waiting or running answers that use it, and the time of its
    last request (seconds of monotonic)."""

    name: str
    path: Path
    slot: int
    users: int = 0
    retired: bool = False
    asked: float = field(default_factory=time.monotonic)


@dataclass
class Inbox:
    """Input of the model's thread from other threads; guarded by the scheduler's lock."""

    waiting: deque[Job] = field(default_factory=deque)
    work: list[Callable[[], None]] = field(default_factory=list)
    cancelled: bool = False
    stop: bool = False
