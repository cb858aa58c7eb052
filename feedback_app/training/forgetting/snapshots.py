"""Earlier snapshots as they would have been without a person's votes.

The label and the weight of an example follow from the votes of then (examples/rule.py), which the
events of votes still tell. The file that a run learned from is not changed: its hash stays with
the snapshot, and the version that learned from it is locked and deleted.
"""

import datetime as dt
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from feedback_app.accounts.models import User
from feedback_app.artifacts import artifact_store
from feedback_app.feedback.examples.rule import ExampleValues, values_of_votes
from feedback_app.feedback.models import Completion, Split, Vote, VoteEvent
from feedback_app.training.models import Run, Snapshot, SnapshotItem

#: Runs that have ended without a version. Started again, they take their snapshot as it is then.
ENDED = (
    Run.Status.FAILED,
    Run.Status.CANCELLED,
    Run.Status.TRAINED,
    Run.Status.STOPPED,
)
Key = tuple[int, int]


@dataclass
class _Changes:
    """The items of several snapshots that change, by (snapshot, completion)."""

    gone: list[int] = field(default_factory=list)
    changed: list[SnapshotItem] = field(default_factory=list)
    new: list[SnapshotItem] = field(default_factory=list)
    snapshots: set[int] = field(default_factory=set)


def snapshots_forget(*, user: User, completions: list[Completion]) -> None:
    """Give every snapshot the examples that these answers would have had without the person's
    votes. Call it in the transaction that deletes the votes, before it does.

    What a cap left out of a snapshot stays left out: caps are not computed again.
    """
    events: dict[int, list[VoteEvent]] = defaultdict(list)
    for event in VoteEvent.objects.filter(completion__in=completions).order_by("created_at", "pk"):
        events[event.completion_id].append(event)
    theirs = [e.created_at for each in events.values() for e in each if e.user_id == user.pk]
    if not theirs:
        return
    project = completions[0].project_id
    # one that is not taken yet has no examples, and is taken after the erasure
    taken = Snapshot.objects.filter(project=project, status=Snapshot.Status.TAKEN)
    since = taken.filter(created_at__gte=min(theirs))
    snapshots = list(since.order_by("pk"))
    found = SnapshotItem.objects.filter(snapshot__in=snapshots, completion__in=completions)
    items = {(item.snapshot_id, item.completion_id): item for item in found}
    changes = _Changes()
    aside = set_aside_since(completions)
    for completion in completions:
        for snapshot in snapshots:
            verdicts = verdicts_then(events[completion.pk], snapshot, aside)
            if user.pk in verdicts and not decided_before(completion, snapshot):
                item = items.get((snapshot.pk, completion.pk))
                _change(changes, snapshot, completion, item, verdicts, without=user.pk)
    SnapshotItem.objects.filter(pk__in=changes.gone).delete()
    SnapshotItem.objects.bulk_update(changes.changed, ["desirable", "weight"])
    # the snapshot of an imported version has test examples only
    imported = set(
        Run.objects.filter(project=project, trigger=Run.Trigger.IMPORTED).values_list(
            "snapshot_id", flat=True
        )
    )
    SnapshotItem.objects.bulk_create(
        item for item in changes.new if item.split == Split.TEST or item.snapshot_id not in imported
    )
    failed_run_files_remove(changes.snapshots)


def votes_counted(
    events: Iterable[VoteEvent], snapshot: Snapshot, aside: Mapping[Key, dt.datetime]
) -> dict[int, VoteEvent]:
    """Return the votes on an answer that counted when the snapshot was taken, by user: of each
    the event that it then followed from."""
    votes: dict[int, VoteEvent] = {}
    for event in events:
        if event.created_at > snapshot.created_at:
            break
        votes[event.user_id] = event
        paused = aside.get((event.completion_id, event.user_id))
        if not event.verdict or (paused is not None and paused <= snapshot.created_at):
            del votes[event.user_id]
    return votes


def verdicts_then(
    events: Iterable[VoteEvent], snapshot: Snapshot, aside: Mapping[Key, dt.datetime]
) -> dict[int, str]:
    """Return the verdicts on an answer that counted when the snapshot was taken, by user."""
    votes = votes_counted(events, snapshot, aside)
    return {user: vote.verdict for user, vote in votes.items()}


def set_aside_since(completions: list[Completion]) -> dict[Key, dt.datetime]:
    """Return since when votes on these answers are set aside, by (completion, user)."""
    votes = Vote.objects.filter(completion__in=completions, set_aside__isnull=False)
    rows = votes.values_list("completion", "user", "set_aside__created_at")
    return {(completion, user): since for completion, user, since in rows}


def decided_before(completion: Completion, snapshot: Snapshot) -> bool:
    """Return whether an admin's verdict was the example, whatever the votes were."""
    if not completion.decided:
        return False
    times = (
        getattr(getattr(completion, "gold_item", None), "created_at", None),
        getattr(getattr(completion, "adjudication", None), "resolved_at", None),
    )
    known = [time for time in times if time is not None]
    return not known or min(known) <= snapshot.created_at


def _change(
    changes: _Changes,
    snapshot: Snapshot,
    completion: Completion,
    item: SnapshotItem | None,
    verdicts: Mapping[int, str],
    *,
    without: int,
) -> None:
    others = [verdict for user, verdict in verdicts.items() if user != without]
    values = values_of_votes(others, text=completion.text)
    if item is None:
        # no example because of a tie, or left out by a cap
        if values is None or values_of_votes(list(verdicts.values()), text=completion.text):
            return
        changes.new.append(_item(snapshot, completion, values))
    elif values is None:
        changes.gone.append(item.pk)
    elif (values.desirable, values.weight) != (item.desirable, item.weight):
        item.desirable, item.weight = values.desirable, values.weight
        changes.changed.append(item)
    changes.snapshots.add(snapshot.pk)


def _item(snapshot: Snapshot, completion: Completion, values: ExampleValues) -> SnapshotItem:
    return SnapshotItem(
        snapshot=snapshot,
        completion=completion,
        desirable=values.desirable,
        weight=values.weight,
        split=completion.prompt.split,
    )


def failed_run_files_remove(snapshots: Iterable[int]) -> None:
    """Remove the files of runs on these snapshots that ended without a version.

    If such a run is resumed it starts over, from its snapshot as it is then.
    """
    for run in Run.objects.filter(snapshot__in=list(snapshots), status__in=ENDED):
        artifact_store().remove(run.tree)
        shutil.rmtree(run.directory, ignore_errors=True)
        # what was measured is of an adapter that is gone: no trial is chosen by it
        Run.objects.filter(pk=run.pk).update(events_offset=0, probes=None)
