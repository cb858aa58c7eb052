"""What the model's thread and everyone else pass to each other."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trainer.engine.batch import FinishReason
from trainer.engine.sampling import Sampling, TokenScore
from trainer.errors import TrainerError


class QueueFull(TrainerError):
    """More requests wait than the engine will hold; come back in a moment."""


class UnknownModel(TrainerError):
    """No base model or adapter of this name is loaded."""


class Stopped(TrainerError):
    """The engine is shutting down."""


@dataclass(frozen=True)
class Piece:
    """What came of one step: a token, the text that is certain now, and at the end why.

    `error` instead of a finish reason means that the answer broke off.
    """

    token_ids: tuple[int, ...] = ()
    text: str = ""
    finish_reason: FinishReason | None = None
    error: str | None = None
    score: TokenScore | None = None


@dataclass(eq=False)
class Job:
    """One request. `tell` is called from the model's thread and must not block.

    `moved` is when it last got anywhere: in line, then at each token (seconds of perf_counter).
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    model: str
    tell: Callable[[Piece], None]
    adapter: "Held | None" = None
    cancelled: bool = False
    moved: float = field(default_factory=time.perf_counter)


@dataclass(eq=False)
class Held:
    """A loaded adapter, how many answers, waiting or running, still need it, and when it was last
    asked for (seconds of monotonic)."""

    name: str
    path: Path
    slot: int
    users: int = 0
    retired: bool = False
    asked: float = field(default_factory=time.monotonic)


@dataclass
class Inbox:
    """What other threads left for the model's thread; guarded by the scheduler's lock."""

    waiting: deque[Job] = field(default_factory=deque)
    work: list[Callable[[], None]] = field(default_factory=list)
    cancelled: bool = False
    stop: bool = False
