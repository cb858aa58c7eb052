"""A run's files between its worker and the artifact store: fetched before, stored meanwhile and
after. Nothing happens here where all hosts see one directory."""

import time
from collections.abc import Callable

from artifact_store.errors import StoreUnreachable
from feedback_app.artifacts import artifact_store
from feedback_app.db.claims import ClaimLost
from feedback_app.db.heartbeats import Heartbeat
from feedback_app.training.models import Run, RunNote
from feedback_app.training.runs import services
from feedback_app.training.runs.claims import RunClaim

#: How long a step of a run waits for a store that does not answer, and how often it asks.
PATIENCE_SECONDS, AGAIN_SECONDS = 300.0, 5.0
#: Left out of what is stored of a finished run.
CHECKPOINTS = "checkpoints"
#: log π₀ of the run's pairs (trainer/training/reference_cache.py), in a run's directory.
REFERENCE = "reference"


class RunFiles:
    """The directory of a claimed run, written as the generation of this attempt."""

    def __init__(self, claim: RunClaim, *, alive: Heartbeat) -> None:
        self._claim, self._alive = claim, alive
        self._store = artifact_store()
        self._tree = claim.row.tree
        self._due = False
        self._away = False
        self._again_at = 0.0
        self._noted = False

    def begin(self) -> None:
        """Bring what earlier attempts stored, and the adapters that the run reads.

        Waits for a store that does not answer. Raises StoreError and ClaimLost.
        """
        if self._store.remote:
            self._persistently(lambda: self._store.begin(self._tree, self._claim.attempt))
            self._persistently(self._read)
            self._offset_limit()
            self._store.trim()

    def checkpointed(self) -> None:
        """Note that there is a checkpoint to store; a job on another host stores its own."""
        self._due = self._store.remote and not self._away

    def push_due(self) -> None:
        """Store a new checkpoint. A store that does not answer is asked again later."""
        if not self._due or time.monotonic() < self._again_at:
            return
        try:
            self._store.push(self._tree, self._claim.attempt)
            self._due = False
        except StoreUnreachable as error:
            self._note(error)
            self._again_at = time.monotonic() + AGAIN_SECONDS

    def push(self) -> None:
        """Store the directory as it is. Waits for the store. Raises StoreError and ClaimLost."""
        self._due = False
        self._persistently(lambda: self._store.push(self._tree, self._claim.attempt))

    def push_finished(self) -> None:
        """Store what later runs and reproductions read of a finished run; best effort."""
        try:
            self._store.push(self._tree, self._claim.attempt, leave_out=(CHECKPOINTS,))
        except StoreUnreachable as error:
            self._note(error)

    def hand_over(self) -> None:
        """Store the directory for a job on another host, which writes it from now on. Waits for the
        store. Raises StoreError and ClaimLost."""
        self._due, self._away = False, True
        self._persistently(lambda: self._store.hand_over(self._tree, self._claim.attempt))

    def take_back(self) -> None:
        """Bring what a job on another host has stored. Raises StoreError and ClaimLost."""
        self._persistently(lambda: self._store.fetch(self._tree, again=True))
        self._away = False

    def reads(self) -> tuple[str, ...]:
        """Return the trees that a job of the run reads beside its own."""
        run = self._claim.row
        live = run.project.adapters.filter(name=run.project.live_version).first()
        return (*self._begins_with(), *([live.path] if live is not None else []))

    def _begins_with(self) -> list[str]:
        """Return the trees of the adapter that the run starts from, or that was imported."""
        run = self._claim.row
        start = run.config.get("start_adapter")
        trees = [str(start).removeprefix("../../")] if start else []
        return trees if run.trains else [*trees, str(run.config["imported"])]

    def _read(self) -> None:
        """Bring the adapter that the run starts from, and log-probabilities of the run before."""
        run = self._claim.row
        for tree in self._begins_with():
            self._store.fetch(tree)
        reference = run.directory / REFERENCE
        before = Run.objects.filter(
            project=run.project_id, status=Run.Status.SUCCEEDED, number__lt=run.number
        ).order_by("-number")
        last = before.first()
        # a run after an erasure takes nothing over from runs before it
        if last is not None and run.retrains_id is None and not reference.exists():
            self._store.copy_part(last.tree, REFERENCE, reference)

    def _offset_limit(self) -> None:
        """Read events from the end of the file that arrived: what the attempt before had written
        after its last push is in the database, and not in the file."""
        run = self._claim.row
        events = run.directory / "events.jsonl"
        size = events.stat().st_size if events.exists() else 0
        if run.events_offset > size:
            run.events_offset = size
            self._claim.update(events_offset=size)

    def _persistently(self, action: Callable[[], object]) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            if self._alive.lost:
                raise ClaimLost
            try:
                action()
                return
            except StoreUnreachable as error:
                self._note(error)
                if time.monotonic() > until or self._claim.cancel_requested():
                    raise
            time.sleep(AGAIN_SECONDS)

    def _note(self, error: StoreUnreachable) -> None:
        if not self._noted:
            services.run_note(
                run=self._claim.row,
                text=f"{error}. The files are kept on this worker and stored when it answers.",
                level=RunNote.Level.WARNING,
            )
        self._noted = True
