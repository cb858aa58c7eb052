"""Errors, each with the exit code from which the caller knows whether to retry."""

from pathlib import Path


class TrainerError(Exception):
    """Base of all errors whose text is written for the person who started the command.

    `exit_code` is what `python -m trainer` returns: 3 cancelled, 4 refused and 5 failed are final,
    6 not written is final until the disk has room, anything else is a crash that may be retried.
    """

    exit_code = 1


class Refused(TrainerError):
    """The input cannot be trained or measured; a retry changes nothing."""

    exit_code = 4

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class RunFailed(TrainerError):
    """Training failed; the same input and config would fail again."""

    exit_code = 5

    def __init__(self, reason: str, *, advice: str, step: int | None = None) -> None:
        where = "" if step is None else f" at step {step}"
        super().__init__(f"{reason}{where}: {advice}")
        self.reason = reason
        self.advice = advice
        self.step = step


class ProcessLost(TrainerError):
    """Another process of the same run has ended; a new attempt resumes from the checkpoint."""


class NotWritten(TrainerError):
    """The disk is full or read-only. A retry fails until that is fixed, and then resumes from the
    checkpoint."""

    exit_code = 6


class Cancelled(TrainerError):
    """Stopped by a signal; a checkpoint was written if there was progress to keep."""

    exit_code = 3

    def __init__(self, step: int) -> None:
        super().__init__(f"cancelled after step {step}; start it again to resume")
        self.step = step


class BadArtifact(Refused):
    """An adapter directory that must not be loaded, with every fault."""

    def __init__(self, *faults: str, path: Path | None = None) -> None:
        super().__init__(*faults)
        self.path = path

    def __str__(self) -> str:
        named = "" if self.path is None else f"adapter {self.path} is refused: "
        return named + "; ".join(self.faults)
