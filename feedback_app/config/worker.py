"""gunicorn's worker with threads, two of which share connections evenly."""

import socket
import time

from gunicorn.workers.gthread import ThreadWorker

#: So long a busy worker leaves a new connection to the others.
LEFT_SECONDS = 0.001


class EvenWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Takes a new connection at once when it is idle, a moment later when it is not.

    Browsers keep their connections. Of eight people who come at the same time one of two workers
    would often take seven, and the other core has nothing to do for as long as they stay.
    """

    def accept(self, listener: socket.socket) -> None:
        waiting = len(self.keepalived_conns) + len(self.pending_conns)
        if self.nr_conns > waiting:
            time.sleep(LEFT_SECONDS)
        super().accept(listener)  # nothing is there any more if another was faster
