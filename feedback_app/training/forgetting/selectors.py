"""How far the forgetting of an erasure is, for the people who asked and for admins."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field

from feedback_app.feedback.models import Project
from feedback_app.feedback.prompts.completions import version_number
from feedback_app.training.models import Adapter, Erasure, GateOutcome, Run
from feedback_app.training.runs.starts import Starts, runs_after, runs_before, starts_of

#: Pending erasures of a project that its pages read: the first of them are due first.
PENDING_READ = 200


@dataclass(frozen=True)
class Affected:
    """The runs of a project that had used what was erased, directly or through the version that
    they were started from: by erasure, and of all pending erasures together."""

    starts: Starts
    runs: dict[int, frozenset[int]] = field(default_factory=dict)

    @property
    def all(self) -> frozenset[int]:
        return frozenset().union(*self.runs.values())

    def chain(self, number: int) -> list[int]:
        """Return the runs to be trained again to replace a version, in their order: from the first
        affected version behind it to itself."""
        behind = [*reversed(runs_before(number, self.starts)), number]
        return [each for each in behind if each in self.all]


@dataclass(frozen=True)
class Forgetting:
    """The state of an erasure. `code` is one of: erasing, none, waiting, refused, training, failed,
    releasing, gate, replaced, deleted, kept (it was erased before versions were
    deleted). `sentence` is for the person who asked as well: it names
    versions, but no person and no text."""

    erasure: Erasure
    code: str
    sentence: str
    versions: list[str]
    run: Run | None = None

    @property
    def falls_back(self) -> bool:
        """Whether the base model goes live at the deadline, unless something is done."""
        return self.code in ("refused", "failed", "gate")


def affected_runs(project: Project, erasures: Iterable[Erasure]) -> Affected:
    """Return which runs had used what these erasures removed."""
    starts = starts_of(project)
    return Affected(
        starts,
        {e.pk: frozenset({*e.runs, *runs_after(e.runs, starts)}) for e in erasures},
    )


def forgettings(project: Project, erasures: Iterable[Erasure]) -> list[Forgetting]:
    """Return the states of erasures of a project, in a fixed number of queries."""
    rows = list(erasures)
    pending = list(
        Erasure.objects.filter(project=project).pending().order_by("due_at")[:PENDING_READ]
    )
    affected = affected_runs(project, {e.pk: e for e in (*pending, *rows)}.values())
    live = version_number(project.live_version)
    again = retraining_of(project, live) if live else None
    return [_state(erasure, project, live, again, affected) for erasure in rows]


def forgetting_of_live(project: Project) -> Forgetting | None:
    """Return the erasure that is due first and that the live version has not forgotten yet."""
    if not version_number(project.live_version):
        return None
    pending = Erasure.objects.filter(project=project).pending().order_by("due_at")
    found = forgettings(project, rows) if (rows := list(pending[:PENDING_READ])) else []
    return next((each for each in found if each.code != "replaced"), None)


def retraining_of(project: Project, number: int) -> Run | None:
    """Return the newest run that repeats this run without what was erased."""
    runs = Run.objects.filter(project=project, retrains__project=project, retrains__number=number)
    return runs.select_related("adapter").order_by("-number").first()


def _state(
    erasure: Erasure, project: Project, live: int, again: Run | None, affected: Affected
) -> Forgetting:
    runs = affected.runs[erasure.pk]
    versions = [project.adapter_name(number) for number in sorted(runs)]
    if erasure.finished_at is None:
        return Forgetting(erasure, "erasing", "It is being erased.", versions)
    if erasure.due_at is None and erasure.runs:
        return Forgetting(erasure, "kept", "Versions had learned from it, and were kept.", versions)
    if erasure.due_at is None:
        return Forgetting(erasure, "none", "No version had learned from it.", versions)
    if erasure.deleted_at is not None:
        return Forgetting(
            erasure, "deleted", "The versions that had learned from it are deleted.", versions
        )
    if live not in runs:
        text = (
            "No version that had learned from it is in use: they are locked, and deleted after "
            f"{day(erasure.due_at)}."
        )
        return Forgetting(erasure, "replaced", text, versions)
    if again is not None and again.number in affected.all:
        again = None  # what was erased later was in it
    code, text = _of_live(erasure, again)
    return Forgetting(erasure, code, text, versions, again)


def _of_live(erasure: Erasure, again: Run | None) -> tuple[str, str]:
    """Return the code and the sentence while the live version had learned from what was erased."""
    due = "" if erasure.due_at is None else day(erasure.due_at)
    base = f"Unless that changes, the base model replaces the live version on {due}."
    if again is None and erasure.problem:
        return "refused", f"Too few examples are left to train the live version again. {base}"
    if again is None:
        return "waiting", "The live version is going to be trained again without it."
    if again.active:
        return "training", "The live version is being trained again without it."
    adapter: Adapter | None = getattr(again, "adapter", None)
    if adapter is None:
        return "failed", f"Training the live version again without it has failed. {base}"
    if adapter.gate_outcome == GateOutcome.PASSED and adapter.discarded_at is None:
        return "releasing", "A version without it has passed the gate and is about to go live."
    return "gate", f"A version without it was trained, but did not pass the gate. {base}"


def day(moment: dt.datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"
