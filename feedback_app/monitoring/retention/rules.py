"""What may be deleted from the disk: files that nothing needs any more.

Each rule yields what it would delete, from rows and the directory of this host. Nothing that is or
was live is ever part of it.
"""

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from feedback_app.artifacts import artifact_store
from feedback_app.feedback.imports.files import NAME
from feedback_app.feedback.models import ImportJob
from feedback_app.serving.models import Release, TrafficSplit
from feedback_app.training.adapter_import.services import FOLDER as IMPORTED
from feedback_app.training.models import Adapter, Run
from feedback_app.training.runs.execution.storage import CHECKPOINTS

#: An uploaded file that no import needs, and the checkpoints of a run that succeeded.
SETTLED = dt.timedelta(days=1)
#: The folder of a finished adapter in a run's directory.
ADAPTER = "adapter"
ENDED = (*Run.DONE, Run.Status.FAILED, Run.Status.CANCELLED)


@dataclass(frozen=True)
class Deletable:
    """Files that may be deleted: of a run, of a version, or of neither. `paths` are those on this
    host; files of a version or of a trial may be in the artifact store alone."""

    rule: str
    paths: tuple[Path, ...]
    run: int | None = None
    adapter: int | None = None


def sentences() -> list[str]:
    """Return the rules as the page shows them."""
    days, versions = settings.CHECKPOINT_DAYS, settings.DISCARDED_DAYS
    return [
        "Checkpoints of a run that succeeded, or of a trial that has ended, are deleted after a day"
        + (
            f", those of one that failed or was cancelled after {days} days: resumed later, it "
            "starts over."
            if days
            else ". Those of others are kept."
        ),
        "Copies that were trained to reproduce a run are deleted after a day.",
        "Uploaded files are deleted a day after their import has ended. Files of an adapter whose "
        "import failed are deleted after a day if it would fail again"
        + (
            f", otherwise after {days} days."
            if days
            else "; those of an import that can be resumed are kept."
        ),
        f"Files of a version are deleted {versions} days after it was discarded; its measures stay."
        if versions
        else "Files of discarded versions are kept.",
        "Adapters of trials that were not chosen are deleted a day after the gate has judged the "
        "chosen one"
        + (
            f", and {versions} days after the end of a sweep of which none was; the measures stay."
            if versions
            else "; those of a sweep of which none was are kept."
        ),
        "Never deleted: versions that are or were live or in a traffic split, those that others "
        "were started from, and whatever is not discarded.",
    ]


def deletable(now: dt.datetime | None = None) -> Iterator[Deletable]:
    """Yield what may be deleted from this host, files that exist only."""
    now = now or timezone.now()
    root = Path(settings.ARTIFACT_ROOT)
    yield from _checkpoints(root, now)
    yield from _reproductions(root, now)
    yield from _uploads(root, now)
    yield from _imported(root, now)
    yield from _versions(root, now)
    yield from _trials(root, now)


def _checkpoints(root: Path, now: dt.datetime) -> Iterator[Deletable]:
    here = {pk: path for path in _children(root / "runs") if (pk := _number(path.name)) is not None}
    for pk in runs_without_checkpoints(now).filter(pk__in=here).values_list("pk", flat=True):
        path = here[pk] / CHECKPOINTS
        if path.is_dir():
            yield Deletable("checkpoints", (path,), run=pk)


def runs_without_checkpoints(now: dt.datetime) -> QuerySet[Run]:
    """Return the ended runs whose checkpoints nobody needs."""
    ended = Q(status__in=Run.DONE, finished_at__lt=now - SETTLED)
    if settings.CHECKPOINT_DAYS:
        before = now - dt.timedelta(days=settings.CHECKPOINT_DAYS)
        ended |= Q(status__in=ENDED, finished_at__lt=before)
    return Run.objects.filter(ended).order_by("pk")


def _reproductions(root: Path, now: dt.datetime) -> Iterator[Deletable]:
    for path in _children(root / "runs"):
        if not path.name.endswith("-again"):
            continue
        # one that trains for longer than SETTLED writes to its files, which a directory's time does
        # not show
        if min(_age(each, now) for each in (path, *_children(path))) > SETTLED:
            yield Deletable("reproductions", (path,))


def _uploads(root: Path, now: dt.datetime) -> Iterator[Deletable]:
    needed = set(
        ImportJob.objects.filter(uploaded=True, status__in=ImportJob.OPEN).values_list(
            "path", flat=True
        )
    )
    for path in _children(root / "imports"):
        if needed.isdisjoint((str(path), str(path / NAME))) and _age(path, now) > SETTLED:
            yield Deletable("imports", (path,))


def _imported(root: Path, now: dt.datetime) -> Iterator[Deletable]:
    hopeless = Run.objects.filter(status__in=ENDED, resumable=False)
    needed = (
        Run.objects.filter(trigger=Run.Trigger.IMPORTED)
        .exclude(pk__in=hopeless.values("pk"))
        .exclude(pk__in=runs_without_checkpoints(now).values("pk"))
    )
    trees = {str(run.config.get("imported")) for run in needed.only("config")}
    for path in _children(root / IMPORTED):
        # beside a tree is the name of its generation, which begins with a dot
        if path.name.startswith(".") or f"{IMPORTED}/{path.name}" in trees:
            continue
        if _age(path, now) > SETTLED:
            yield Deletable("imported", (path,))


def _versions(root: Path, now: dt.datetime) -> Iterator[Deletable]:
    remote = artifact_store().remote
    for adapter in versions_without_files(now).select_related("run"):
        paths = (adapter.directory, adapter.run.directory / ADAPTER)
        there = tuple(path for path in paths if path.is_dir())
        # the host that deleted a version has removed it from the store
        if there or (remote and adapter.deleted_at is None):
            yield Deletable("versions", there, adapter=adapter.pk)


def versions_without_files(now: dt.datetime) -> QuerySet[Adapter]:
    """Return the discarded versions whose files nobody needs; those that an erasure has locked are
    deleted by it. Also what an interrupted deletion has left."""
    if not settings.DISCARDED_DAYS:
        return Adapter.objects.none()
    return (
        Adapter.objects.filter(
            discarded_at__lt=now - dt.timedelta(days=settings.DISCARDED_DAYS), locked_at=None
        )
        .exclude(name=F("project__live_version"))
        .exclude(Exists(Release.objects.filter(adapter=OuterRef("pk"))))
        .exclude(Exists(TrafficSplit.objects.filter(candidate=OuterRef("pk"))))
        .exclude(pk__in=_starts())
        .order_by("pk")
    )


def _trials(root: Path, now: dt.datetime) -> Iterator[Deletable]:
    found = root.glob(f"runs/*/{ADAPTER}")
    here = {pk for path in found if (pk := _number(path.parent.name)) is not None}
    rows = trials_without_adapter(now)
    if artifact_store().remote:
        # the worker that trained it has it, and the store
        rows = rows.filter(Q(pk__in=here) | Q(adapter_deleted_at=None))
    else:
        rows = rows.filter(pk__in=here)
    for pk in rows.values_list("pk", flat=True):
        paths = (root / "runs" / str(pk) / ADAPTER,) if pk in here else ()
        yield Deletable("trials", paths, run=pk)


def trials_without_adapter(now: dt.datetime) -> QuerySet[Run]:
    """Return the trials whose adapters nobody needs: the gate has judged the chosen one of their
    sweep, or none was chosen for long. Also what an interrupted deletion has left.

    A trial that was chosen is none of them, nor is any run that has made a version.
    """
    chosen = Run.objects.filter(sweep=OuterRef("sweep"), evaluates=True)
    judged = chosen.filter(adapter__isnull=False, finished_at__lt=now - SETTLED)
    unwanted = Q(Exists(judged))
    if settings.DISCARDED_DAYS:
        before = now - dt.timedelta(days=settings.DISCARDED_DAYS)
        unwanted |= Q(~Exists(chosen), sweep__ended_at__lt=before)
    return Run.objects.filter(
        unwanted,
        evaluates=False,
        status__in=Run.DONE,
        sweep__ended_at__isnull=False,
        adapter__isnull=True,
    ).order_by("pk")


def _starts() -> list[int]:
    """Return the ids of the versions from which a run was started."""
    paths = {
        str(start).removeprefix("../../")
        for start in Run.objects.filter(config__start_adapter__isnull=False).values_list(
            "config__start_adapter", flat=True
        )
    }
    return list(Adapter.objects.filter(path__in=paths).values_list("pk", flat=True))


def size_of(paths: Iterable[Path]) -> int:
    """Return the bytes that are free once these are deleted: a file with a further link counts
    when its last one is among them."""
    links: dict[tuple[int, int], list[int]] = {}
    for path in paths:
        for file in [path] if path.is_file() else path.rglob("*"):
            try:
                found = file.lstat()
            except OSError:
                continue  # deleted meanwhile
            if not file.is_dir():
                links.setdefault((found.st_dev, found.st_ino), []).append(found.st_blocks * 512)
                links[found.st_dev, found.st_ino].append(found.st_nlink)
    return sum(sizes[0] for sizes in links.values() if len(sizes) // 2 >= sizes[1])


def _children(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _number(name: str) -> int | None:
    return int(name) if name.isdecimal() else None


def _age(path: Path, now: dt.datetime) -> dt.timedelta:
    try:
        changed = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
    except OSError:
        return dt.timedelta()
    return now - changed
