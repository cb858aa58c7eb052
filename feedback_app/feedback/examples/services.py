"""Bringing many examples up to date at once, and back as they were."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence

from feedback_app.db.batches import batched
from feedback_app.feedback.examples.rule import example_of
from feedback_app.feedback.models import (
    Completion,
    Example,
    Vote,
)

#: Rows that are locked and written at once.
CHUNK = 500
#: completion, created_at (ISO 8601), used_in_run
Kept = tuple[int, str, int | None]


def examples_refresh(completions: Iterable[int]) -> list[Kept]:
    """Makes the examples of these completions what their votes say now, and returns what went.

    Call it in the transaction that changed the votes. Rows are locked in the order of their ids.
    """
    gone: list[Kept] = []
    for chunk in batched(sorted(set(completions)), CHUNK):
        light = Completion.objects.select_related("prompt").defer("token_ids", "prompt_token_ids")
        rows = light.select_for_update(of=("self",)).filter(pk__in=chunk).order_by("pk")
        gone += examples_follow(list(rows))[0]
    return gone


def examples_follow(completions: list[Completion]) -> tuple[list[Kept], int]:
    """What `services.example_refresh` does, for completions that this transaction has locked.

    Returns the examples that went, and how many came to be or say something else now.
    """
    ids = [completion.pk for completion in completions]
    verdicts = defaultdict(list)
    standing = Vote.objects.standing().filter(completion__in=ids)
    for pk, verdict in standing.values_list("completion_id", "verdict"):
        verdicts[pk].append(verdict)
    before = {example.pk: example for example in Example.objects.filter(completion__in=ids)}
    changed = []
    counted = defaultdict(list)  # few outcomes, so few statements
    gone: list[Kept] = []
    for completion in completions:
        said, old = verdicts[completion.pk], before.get(completion.pk)
        counted[len(said), len(set(said)) > 1].append(completion.pk)
        example = example_of(completion, said)
        if example is None:
            if old is not None:
                gone.append((old.pk, old.created_at.isoformat(), old.used_in_run))
        elif old is None or (old.desirable, old.weight) != (example.desirable, example.weight):
            changed.append(example)
    for (votes, contested), alike in counted.items():
        Completion.objects.filter(pk__in=alike).update(vote_count=votes, contested=contested)
    Example.objects.filter(pk__in=[pk for pk, *_ in gone]).delete()
    Example.objects.bulk_create(
        changed,
        update_conflicts=True,
        unique_fields=["completion"],
        update_fields=["desirable", "weight", "split", "updated_at"],
    )
    return gone, len(changed)


def completions_lock(completions: Iterable[int]) -> None:
    """Locks them before their votes are touched: the order in which a vote takes its locks."""
    for chunk in batched(sorted(set(completions)), CHUNK):
        rows = Completion.objects.select_for_update().filter(pk__in=chunk).order_by("pk")
        list(rows.values_list("pk"))


def examples_remember(kept: Sequence[Kept]) -> None:
    """Examples that are there again are as old as they were, and used in the run they were."""
    known = {pk: (dt.datetime.fromisoformat(created), run) for pk, created, run in kept}
    for chunk in batched(sorted(known), CHUNK):
        rows = list(Example.objects.filter(pk__in=chunk))
        for row in rows:
            row.created_at, row.used_in_run = known[row.pk]
        Example.objects.bulk_update(rows, ["created_at", "used_in_run"])


def example_refresh(*, completion: Completion) -> Example | None:
    """Makes the Example what the votes say now. Call it in the vote's transaction."""
    votes = Vote.objects.standing().filter(completion=completion)
    verdicts = list(votes.values_list("verdict", flat=True))
    completion.vote_count = len(verdicts)
    completion.contested = len(set(verdicts)) > 1
    completion.save(update_fields=["vote_count", "contested"])
    example = example_of(completion, verdicts)
    if example is None:
        Example.objects.filter(completion=completion).delete()
        return None
    # one statement: the row is locked, and there may be one already
    [example] = Example.objects.bulk_create(
        [example],
        update_conflicts=True,
        unique_fields=["completion"],
        update_fields=["desirable", "weight", "split", "updated_at"],
    )
    return example
