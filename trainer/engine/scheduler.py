"""One thread owns the model and keeps the batch going; everybody else talks to it by messages."""

import logging
import os
import queue
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.chat import eos_ids
from trainer.decoding import DecodingBatch, FinishReason, Row, Sampling, seeded
from trainer.engine.adapters import AdapterPool, HeldAdapter
from trainer.engine.text import TextStream
from trainer.errors import TrainerError
from trainer.model import LoadedBase

log = logging.getLogger("trainer.engine")

MAX_BATCH = 32
MAX_QUEUE = 256
JOIN_AT_ONCE = 8  # prompts read between two steps: more would make the others wait


class QueueFull(TrainerError):
    """More requests wait than the engine will hold; come back in a moment."""


class UnknownModel(TrainerError):
    """No base model or adapter of this name is loaded."""


@dataclass(frozen=True)
class Piece:
    """What a listener is told: new ids and text, and at the end why it ended."""

    token_ids: list[int]
    text: str
    finish_reason: FinishReason | None = None
    error: str | None = None


@dataclass(eq=False)
class Job:
    """One request on its way through the batch. `tell` is called from the model's thread."""

    prompt_ids: list[int]
    sampling: Sampling
    model: str
    tell: Callable[[Piece], None]
    text: TextStream
    row: Row | None = None
    told: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)


class Scheduler:
    """Start it once; `submit`, `cancel`, `load` and `unload` may be called from any thread."""

    def __init__(
        self, base: LoadedBase, artifact_root: Path, *, max_batch: int = MAX_BATCH
    ) -> None:
        self.base = base
        self.base_name = Path(base.name).name
        self.pool = AdapterPool(base, artifact_root)
        self.eos = eos_ids(base.model, base.tokenizer)
        self.max_batch = max_batch
        self.counters: Counter[str] = Counter()
        self.context_limit = int(
            getattr(base.model.config.get_text_config(), "max_position_embeddings", 2048)
        )
        self._batch = DecodingBatch(base.model, with_adapters=self.pool.for_rows)
        self._waiting: list[Job] = []
        self._running: dict[int, Job] = {}
        self._draining: dict[str, list[Future[None]]] = {}
        # messages to the model's thread; None asks it to stop
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the present step; whoever still waits is told."""
        self._inbox.put(None)
        self._thread.join(timeout=30)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def adapters(self) -> list[HeldAdapter]:
        return list(self.pool.held.values())

    def submit(self, job: Job) -> None:
        """Puts a request into the queue. Raises QueueFull or UnknownModel."""
        if len(self._waiting) >= MAX_QUEUE:
            raise QueueFull(f"{MAX_QUEUE} requests are waiting already")
        unloading = job.model in self._draining
        if job.model != self.base_name and (unloading or job.model not in self.pool.held):
            raise UnknownModel(f"The model {job.model!r} is not loaded.")
        self._inbox.put(lambda: self._waiting.append(job))

    def cancel(self, job: Job) -> None:
        """The request leaves the queue or the batch before the next token."""
        job.cancelled.set()
        self._inbox.put(lambda: None)  # wakes the thread

    def load(self, name: str, path: str) -> Future[HeldAdapter]:
        """Loads between two steps; running answers go on right after."""
        future: Future[HeldAdapter] = Future()

        def work() -> None:
            held = self.pool.load(name, path)
            self._batch.model = self.pool.model
            # wanted again before its last answer had ended: it stays
            for unloading in self._draining.pop(name, []):
                unloading.set_result(None)
            future.set_result(held)

        self._inbox.put(lambda: settle(future, work))
        return future

    def unload(self, name: str) -> Future[None]:
        """No new request may use the adapter; it is freed when its running answers are done."""
        future: Future[None] = Future()

        def work() -> None:
            if name not in self.pool.held:
                raise UnknownModel(f"The adapter {name!r} is not loaded.")
            self._draining.setdefault(name, []).append(future)

        self._inbox.put(lambda: settle(future, work))
        return future

    # -- the model's thread

    def _run(self) -> None:
        try:
            self._serve()
            why = "The engine is shutting down: try again in a moment."
        except Exception:
            # a fault of this code, not of a request: end the process, so that whoever watches
            # it starts a fresh one, instead of letting everybody wait
            log.exception("the model's thread failed")
            why = "The engine failed and starts again: try again in a moment."
            os.kill(os.getpid(), signal.SIGTERM)
        for job in [*self._waiting, *self._running.values()]:
            job.tell(Piece([], "", error=why))

    def _serve(self) -> None:
        while True:
            idle = not self._waiting and not self._running and not self._draining
            stop = self._read_inbox(block=idle)
            if stop:
                return
            self._drop_cancelled()
            self._free_drained()
            self._admit()
            if self._batch.rows:
                self._guarded(self._batch.step)
            self._report()

    def _read_inbox(self, *, block: bool) -> bool:
        """Handles all messages; waits for the first one if there is nothing else to do."""
        while True:
            try:
                message = self._inbox.get(block=block)
            except queue.Empty:
                return False
            if message is None:
                return True
            message()
            block = False

    def _admit(self) -> None:
        room = min(self.max_batch - len(self._batch.rows), JOIN_AT_ONCE)
        joining: list[Row] = []
        while self._waiting and len(joining) < room:
            job = self._waiting.pop(0)
            held = self.pool.held.get(job.model)
            if held is None and job.model != self.base_name:
                job.tell(Piece([], "", error=f"The model {job.model!r} was unloaded."))
                continue
            job.row = Row(
                prompt_ids=job.prompt_ids,
                sampling=job.sampling,
                eos=self.eos,
                generator=seeded(job.sampling.seed, self.base.device),
                adapter=held.internal if held else None,
            )
            self._running[id(job.row)] = job
            joining.append(job.row)
        if joining:
            self._guarded(lambda: self._batch.join(joining))

    def _guarded(self, work: Callable[[], None]) -> None:
        """A fault of the model ends the answers in flight, not the engine."""
        try:
            work()
        except Exception as error:  # out of memory and the like: whoever waits must hear of it
            self.counters["failures"] += len(self._running)
            for job in self._running.values():
                job.tell(Piece([], "", error=f"The engine failed: {error}"))
            self._running.clear()
            self._batch = DecodingBatch(self.pool.model, with_adapters=self.pool.for_rows)

    def _report(self) -> None:
        """Tells every listener what is new; finished jobs leave."""
        for key, job in list(self._running.items()):
            row = job.row
            if row is None or job.told == len(row.token_ids):
                continue
            new = row.token_ids[job.told :]
            job.told = len(row.token_ids)
            self.counters["tokens"] += len(new)
            text = job.text.feed(new, last=row.finish_reason is not None)
            reason = row.finish_reason
            if job.text.stopped:
                reason = "stop"
                self._batch.remove([row])
            job.tell(Piece(new, text, finish_reason=reason))
            if reason is not None:
                self.counters["finished"] += 1
                del self._running[key]

    def _drop_cancelled(self) -> None:
        gone = [key for key, job in self._running.items() if job.cancelled.is_set()]
        rows = [job.row for job in map(self._running.pop, gone) if job.row is not None]
        if rows:
            self._batch.remove(rows)
            self.counters["cancelled"] += len(rows)
        self._waiting = [job for job in self._waiting if not job.cancelled.is_set()]

    def _free_drained(self) -> None:
        """Unloads what nobody uses any more. Waiting requests for it are told by `_admit`."""
        for name, futures in list(self._draining.items()):
            if any(job.model == name for job in [*self._running.values(), *self._waiting]):
                continue
            del self._draining[name]

            def work(name: str = name, futures: list[Future[None]] = futures) -> None:
                if name in self.pool.held:
                    self.pool.unload(name)
                    self._batch.model = self.pool.model
                for future in futures:
                    future.set_result(None)

            settle(futures[0], work)


def settle(future: Future[Any], work: Callable[[], None]) -> None:
    """Runs `work` and hands its exception, if any, to whoever waits for the future."""
    try:
        work()
    except Exception as error:  # carried to the caller, who knows what to say
        future.set_exception(error)
