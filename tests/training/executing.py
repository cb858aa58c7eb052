"""Executing a run as a worker does, in this process."""

import threading

from django.db import connection

from feedback_app.training.launchers.selection import launcher_selected
from feedback_app.training.models import Run
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.execution.sequence import run_execute


def execute(run: Run) -> Run:
    """Execute the run with the launcher that project and settings choose; return its new state."""
    claim = run_claim(run.pk)
    assert claim is not None
    run_execute(claim, launcher_selected(run.project))
    run.refresh_from_db()
    return run


def execute_in_thread(run: Run) -> threading.Thread:
    """Start a thread that executes the run."""

    def work() -> None:
        try:
            execute(Run.objects.get(pk=run.pk))
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread
