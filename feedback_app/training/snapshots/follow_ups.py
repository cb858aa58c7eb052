"""Training examples that follow from what readers did next, of answers that nobody has voted on.

They are items of a snapshot and no examples of the project: validation and test examples come from
votes alone, and so do the figures that count examples.
"""

from collections import Counter
from dataclasses import dataclass

from feedback_app.feedback.follow_ups.agreement import READ, follow_up_agreement, verdict_of
from feedback_app.feedback.models import FollowUp, Project, Split
from feedback_app.training.models import Snapshot, SnapshotItem
from feedback_app.training.snapshots.pieces import WHOLE, Pieces

#: The weight of such an example; that of a vote is 1.
WEIGHT = 0.1
#: Of one person, and for each training example that follows from votes.
MOST_EACH, MOST_SHARE = 20, 0.25


@dataclass(frozen=True)
class Hint:
    """An answer, who has read it, and the verdict that they hinted at."""

    completion: int
    user: int
    up: bool


def follow_ups_add(snapshot: Snapshot, project: Project, pieces: Pieces = WHOLE) -> None:
    """Add the examples to a snapshot that is being taken, if they agree with votes enough. Call it
    in the transaction that creates the snapshot, or with its pieces."""
    if not project.follow_ups or not follow_up_agreement(project).counts:
        return
    most = int(snapshot.train_total * MOST_SHARE)
    found = hints(project)[:most]
    with pieces.part():
        # voted on since it was looked for, an answer may have an item already
        voted = SnapshotItem.objects.filter(
            snapshot=snapshot, completion__in=[hint.completion for hint in found]
        )
        known = set(voted.values_list("completion", flat=True))
        found = [hint for hint in found if hint.completion not in known]
        SnapshotItem.objects.bulk_create(
            SnapshotItem(
                snapshot=snapshot,
                completion_id=hint.completion,
                desirable=hint.up,
                weight=WEIGHT,
                split=Split.TRAIN,
                implicit=True,
            )
            for hint in found
        )
        snapshot.follow_ups = len(found)
        snapshot.train_up += sum(hint.up for hint in found)
        snapshot.train_down += sum(not hint.up for hint in found)
        snapshot.save(update_fields=["follow_ups", "train_up", "train_down"])


def hints(project: Project) -> list[Hint]:
    """Return hints for answers to training prompts without a vote, newest first; of each person
    the newest MOST_EACH."""
    rows = FollowUp.objects.filter(
        project=project,
        completion__prompt__split=Split.TRAIN,
        completion__vote_count=0,
        completion__decided="",
        completion__flagged=False,
        completion__gold=False,
        completion__example=None,
        completion__training_weight=None,
    ).exclude(completion__text="")
    kinds: dict[tuple[int, int], set[str]] = {}
    newest = rows.order_by("-pk").values_list("completion", "user", "kind")
    for completion, user, kind in newest[:READ]:
        kinds.setdefault((completion, user), set()).add(kind)
    found: list[Hint] = []
    given: Counter[int] = Counter()
    seen: set[int] = set()
    for (completion, user), said in kinds.items():
        up = verdict_of(said)
        if up is None or completion in seen or given[user] == MOST_EACH:
            continue
        seen.add(completion)
        given[user] += 1
        found.append(Hint(completion, user, up))
    return found
