"""Run the batch in one thread that owns the model; other threads submit requests to it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from artifact_store.base import ArtifactStore
from trainer.backends import serving_decoder
from trainer.data.chat import eos_ids
from trainer.engine.adapters import fetched, inside, read_adapter, trimmed
from trainer.engine.batch import (
    CHUNK_TOKENS,
    PREFILL_TOKENS,
    Batch,
    Row,
    context_length,
    prefill_group,
)
from trainer.engine.cache_limits import cache_limits
from trainer.engine.histograms import EngineMetrics
from trainer.engine.jobs import Held, Inbox, Job, Piece, QueueFull, Stopped, UnknownModel
from trainer.engine.prefix_cache import PrefixCache
from trainer.errors import BadArtifact
from trainer.heap import release_free_memory
from trainer.models.loading import LoadedBase
from trainer.names import is_adapter_name

MAX_BATCH = 64
MAX_QUEUE = 256
MAX_ADAPTERS = 32
#: Groups of prompts that are read alternately: a long one does not delay the next.
MAX_READING = 2
#: Idle time after which free memory is returned to the system.
IDLE_SECONDS = 5.0
#: Directory of registered adapters under the artifact root, one directory a name.
REGISTERED = "adapters"
SHUTTING_DOWN = "The engine is shutting down: try again in a moment."


class Scheduler:
    """Runs from `start` to `stop`; every public method may be called from any thread.

    `store` brings adapters that are not below `artifact_root` yet. `on_crash` is called when the
    model's thread ends with an unexpected error.
    """

    def __init__(
        self,
        base: LoadedBase,
        artifact_root: Path,
        *,
        name: str,
        max_batch: int = MAX_BATCH,
        max_queue: int = MAX_QUEUE,
        max_adapters: int = MAX_ADAPTERS,
        store: ArtifactStore | None = None,
        on_crash: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self.base = base
        self.name = name
        self.artifact_root = artifact_root
        self.context = context_length(base.model)
        self.metrics = EngineMetrics()
        self.counters = self.metrics.counters
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._max_adapters = max_adapters
        self._store = store
        self._on_crash = on_crash
        self._eos = eos_ids(base.model, base.tokenizer)
        self._decoder = serving_decoder(base.model)
        self._shapes = self._decoder.shapes
        self._limits = cache_limits(base.model)  # once the weights are where they stay
        self._prefix_cache = PrefixCache(self._limits.prefixes)
        self._batch = self._new_batch()
        self._running: dict[Row, Job] = {}
        self._held: dict[str, Held] = {}
        self._inbox = Inbox()
        self._changed = threading.Condition()
        self._loading = threading.Lock()  # one adapter is loaded at a time
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop after the present step; waiting requests get an error."""
        with self._changed:
            self._inbox.stop = True
            self._changed.notify()
        self._thread.join(timeout=30)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def queued(self) -> int:
        return len(self._inbox.waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def reused_tokens(self) -> int:
        """Prompt tokens that were taken from the prefix cache."""
        return self._batch.reused_tokens

    def adapters(self) -> list[Held]:
        with self._changed:
            return list(self._held.values())

    def submit(self, job: Job) -> None:
        """Add a request to the queue. Raises QueueFull, UnknownModel or Stopped."""
        with self._changed:
            if self._inbox.stop:
                raise Stopped(SHUTTING_DOWN)
            if job.model != self.name and job.model not in self._held:
                raise UnknownModel(f"The model {job.model!r} is not loaded.")
            if len(self._inbox.waiting) >= self._max_queue:
                self.counters["refused"] += 1
                raise QueueFull(
                    f"{self._max_queue} requests are waiting already: try again in a moment."
                )
            job.adapter = self._held.get(job.model)
            if job.adapter is not None:
                job.adapter.users += 1
                job.adapter.asked = time.monotonic()
            self.counters["prompt_tokens"] += len(job.prompt)
            self._inbox.waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Remove a request from the queue or the batch before the next token."""
        with self._changed:
            job.cancelled = True
            self._inbox.cancelled = True
            self._changed.notify()

    def load(self, name: str, path: str) -> Held:
        """Verify and load an adapter while answers continue; loading it twice has no effect.

        At the limit the least recently requested adapter is unloaded, unless an answer needs it.
        Raises BadArtifact with every fault, and StoreError. Blocks until requests may name the
        adapter.
        """
        began = time.perf_counter()
        try:
            held, fresh = self._load(name, path)
        except BadArtifact:
            with self._changed:
                self.metrics.failed(name)
            raise
        if fresh:
            with self._changed:
                self.counters["loads"] += 1
                self.metrics.load.observe(time.perf_counter() - began)
        return held

    def load_registered(self, name: str) -> bool:
        """Load a registered adapter; return False if there is none of this name.

        Raises BadArtifact.
        """
        if not is_adapter_name(name) or not (self.artifact_root / REGISTERED / name).is_dir():
            return False
        self.load(name, f"{REGISTERED}/{name}")
        return True

    def _load(self, name: str, path: str) -> tuple[Held, bool]:
        with self._loading:
            directory = inside(self.artifact_root, path)
            known = self._held.get(name)
            if known is not None:
                if known.path != directory:
                    raise BadArtifact(
                        f"{name} is loaded from {known.path} already and names are immutable: "
                        "give the other directory a new name",
                        path=directory,
                    )
                return known, False
            if name == self.name:
                raise BadArtifact(f"{name} is the base model's name", path=directory)
            fetched(self._store, directory)
            _, weights = read_adapter(directory, self.base, self._shapes, name=name)
            self._make_room(directory)
            held = Held(name, directory, self._between_steps(lambda: self._decoder.attach(weights)))
            with self._changed:
                self._held[name] = held
                loaded = [each.path for each in self._held.values()]
            trimmed(self._store, loaded)
            return held, True

    def _make_room(self, wanted: Path) -> None:
        with self._changed:
            if len(self._held) < self._max_adapters:
                return
            idle = [held for held in self._held.values() if held.users == 0]
            if not idle:
                raise BadArtifact(
                    f"{self._max_adapters} adapters are loaded, which is the limit, and answers "
                    "need all of them: try again in a moment",
                    path=wanted,
                )
            oldest = min(idle, key=lambda held: held.asked)
            del self._held[oldest.name]
            oldest.retired = True
            self.counters["evictions"] += 1
            self._free_if_unused(oldest)

    def unload(self, name: str) -> None:
        """Unload an adapter: new requests cannot use it, and its weights are freed after the last
        answer that does. Raises UnknownModel."""
        with self._changed:
            held = self._held.pop(name, None)
            if held is None:
                raise UnknownModel(f"The adapter {name!r} is not loaded.")
            held.retired = True
            self._free_if_unused(held)

    def _between_steps(self, work: Callable[[], int]) -> int:
        """Run `work` in the model's thread before its next step; return or raise its outcome."""
        outcome: Future[int] = Future()

        def action() -> None:
            try:
                outcome.set_result(work())
            except Exception as error:  # raised in the caller's thread
                outcome.set_exception(error)

        with self._changed:
            if self._inbox.stop:
                raise Stopped(SHUTTING_DOWN)
            self._inbox.work.append(action)
            self._changed.notify()
        return outcome.result()

    def _free_if_unused(self, held: Held) -> None:
        if held.retired and held.users == 0:
            self._inbox.work.append(partial(self._free, held.slot))
            self._changed.notify()

    def _free(self, slot: int) -> None:
        self._decoder.detach(slot)
        self._prefix_cache.drop(slot)

    # -- the model's thread

    def _run(self) -> None:
        why = SHUTTING_DOWN
        try:
            self._serve()
        except Exception as error:
            # an error of this code, not of a request: end the process, so that its supervisor
            # restarts it
            with self._changed:
                self._inbox.stop = True
            why = "The engine failed and starts again: try again in a moment."
            self._on_crash(error)
        for action in self._inbox.work:  # their callers wait for the outcome
            action()
        for job in [*self._inbox.waiting, *self._running.values()]:
            job.deliver(Piece(error=why))

    def _serve(self) -> None:
        computed = False  # since free memory was last returned to the system
        while True:
            if computed and not self._has_work_within(IDLE_SECONDS):
                release_free_memory()
                computed = False
            with self._changed:
                self._changed.wait_for(self._has_work)
                if self._inbox.stop:
                    return
                work, self._inbox.work = self._inbox.work, []
                self._drop_cancelled()
                newcomers = self._newcomers()
            for action in work:
                action()
            computed = True
            began = time.perf_counter()
            self._batch.begin(newcomers)
            if self._batch.reading:
                self._guarded(partial(self._batch.read, self._chunk))
            if self._batch.rows:
                self._guarded(self._batch.step)
            self.metrics.step_seconds += time.perf_counter() - began

    @property
    def _chunk(self) -> int:
        """Return how many tokens may be read at once: fewer while answers are being decoded."""
        return CHUNK_TOKENS if self._batch.rows else PREFILL_TOKENS

    def _has_work_within(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(self._has_work, seconds)

    def _has_work(self) -> bool:
        inbox = self._inbox
        return bool(inbox.stop or inbox.work or inbox.waiting or inbox.cancelled or self._running)

    def _drop_cancelled(self) -> None:
        if not self._inbox.cancelled:
            return
        self._inbox.cancelled = False
        for row, job in list(self._running.items()):
            if job.cancelled:
                self._batch.leave(row)
                del self._running[row]
                self._ended(job, "cancelled")
        for job in [job for job in self._inbox.waiting if job.cancelled]:
            self._inbox.waiting.remove(job)
            self._ended(job, "cancelled")

    def _newcomers(self) -> list[Row]:
        """Take from the queue, in order, the requests that may be read before the next step."""
        if not self._inbox.waiting or self._batch.reading >= MAX_READING:
            return []
        places = self._max_batch - len(self._running)
        rows = [self._row(job) for job in list(self._inbox.waiting)[:places]]
        count = prefill_group(rows, self._fitting(rows), self._chunk)
        for row in rows[:count]:
            self._running[row] = self._inbox.waiting.popleft()
        return rows[:count]

    def _fitting(self, rows: list[Row]) -> int:
        """Return how many of `rows`, in order, fit the cache; at least one if it is empty: a
        request that is larger than the cache runs alone."""
        reach = max((row.reach for row in self._running), default=0)
        for count, row in enumerate(rows):
            reach = max(reach, row.reach)
            total = len(self._running) + count
            if total and reach * (total + 1) > self._batch.positions:
                return count
        return len(rows)

    def _new_batch(self) -> Batch:
        return Batch(self.base.model, self._decoder, self._prefix_cache, self._limits.batch)

    def _row(self, job: Job) -> Row:
        return Row.new(
            job.prompt,
            job.sampling,
            tokenizer=self.base.tokenizer,
            eos=self._eos,
            slot=0 if job.adapter is None else job.adapter.slot,
        )

    def _guarded(self, work: Callable[[], list[tuple[Row, str]]]) -> None:
        """Run a step and deliver its tokens; an error of the model ends the running answers, not
        the engine."""
        self.counters["steps"] += 1
        try:
            moved = work()
        except Exception as error:  # out of memory, for example
            jobs = list(self._running.values())
            self._running.clear()
            self._prefix_cache = PrefixCache(self._limits.prefixes)
            self._batch = self._new_batch()
            for job in jobs:
                self._deliver_error(job, f"The engine failed ({type(error).__name__}: {error}).")
            return
        for row, text in moved:
            self._deliver(row, text)

    def _deliver(self, row: Row, text: str) -> None:
        job = self._running[row]
        if row.finish_reason is not None:
            del self._running[row]
        if row.finish_reason == "error":
            self._deliver_error(job, "The model's scores are not finite: its weights are broken.")
            return
        self.counters["completion_tokens"] += 1
        now = time.perf_counter()
        measured = self.metrics.token_gap
        if len(row.token_ids) == 1:
            measured = self.metrics.first_token
        measured.observe(now - job.moved)
        job.moved = now
        if row.finish_reason is not None:
            with self._changed:
                self._ended(job, row.finish_reason)
        score = row.scores[-1] if row.scores else None
        job.deliver(Piece((row.token_ids[-1],), text, row.finish_reason, score=score))

    def _deliver_error(self, job: Job, message: str) -> None:
        with self._changed:
            self._ended(job, "failed")
            self.metrics.failed(job.model)
        job.deliver(Piece(error=message))

    def _ended(self, job: Job, how: str) -> None:
        self.counters[how] += 1
        if job.adapter is not None:
            job.adapter.users -= 1
            self._free_if_unused(job.adapter)
