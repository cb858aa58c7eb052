"""The only writer of Example rows."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence

from django.db.models import QuerySet

from feedback_app.db.batches import batched
from feedback_app.db.prepared import Statement, insertion
from feedback_app.feedback.examples.rule import example_of
from feedback_app.feedback.models import Completion, Example, Split, Vote

#: Rows that are locked and written at once.
CHUNK = 500
#: What an example that exists already takes from the votes.
UPDATED = ("desirable", "weight", "split", "updated_at")
#: completion, created_at (ISO 8601), used_in_run
RemovedExample = tuple[int, str, int | None]


def example_refresh(*, completion: Completion) -> None:
    """Make a locked completion's example follow its votes. Call it in the vote's transaction."""
    [example] = _examples_due([completion])
    if example is None:
        Example.objects.filter(completion=completion).delete()
    else:
        examples_store([example])


def examples_refresh(completions: Iterable[int]) -> list[RemovedExample]:
    """Lock these completions, make their examples follow their votes, return what was removed.

    Call it in the transaction that changed the votes. Rows are locked in the order of their ids.
    """
    removed: list[RemovedExample] = []
    for chunk in batched(sorted(set(completions)), CHUNK):
        light = Completion.objects.select_related("prompt").defer("token_ids", "prompt_token_ids")
        rows = light.select_for_update(of=("self",)).filter(pk__in=chunk).order_by("pk")
        removed += examples_refresh_locked(list(rows))[0]
    return removed


def examples_refresh_locked(completions: list[Completion]) -> tuple[list[RemovedExample], int]:
    """Do the same for completions that this transaction has locked.

    Return the removed examples, and how many were created or changed.
    """
    before = {row.pk: row for row in Example.objects.filter(completion__in=completions)}
    changed: list[Example] = []
    removed: list[RemovedExample] = []
    for completion, example in zip(completions, _examples_due(completions), strict=True):
        old = before.get(completion.pk)
        if example is None:
            if old is not None:
                removed.append((old.pk, old.created_at.isoformat(), old.used_in_run))
        elif old is None or (old.desirable, old.weight) != (example.desirable, example.weight):
            changed.append(example)
    Example.objects.filter(pk__in=[pk for pk, *_ in removed]).delete()
    examples_store(changed)
    return removed, len(changed)


def _examples_due(completions: list[Completion]) -> list[Example | None]:
    """Store the vote counts of locked completions; return the example that each should have."""
    verdicts = defaultdict(list)
    counted = Vote.objects.standing().filter(completion__in=completions)
    for pk, verdict in counted.values_list("completion_id", "verdict"):
        verdicts[pk].append(verdict)
    alike = defaultdict(list)  # one statement for all with the same counts
    for completion in completions:
        given = verdicts[completion.pk]
        completion.vote_count, completion.contested = len(given), len(set(given)) > 1
        alike[completion.vote_count, completion.contested].append(completion.pk)
    for (votes, contested), pks in alike.items():
        Completion.objects.filter(pk__in=pks).update(vote_count=votes, contested=contested)
    return [example_of(completion, verdicts[completion.pk]) for completion in completions]


def examples_store(examples: Iterable[Example]) -> None:
    """Insert the examples, or update those of the same completions, in one statement."""
    Example.objects.bulk_create(
        list(examples),
        update_conflicts=True,
        unique_fields=["completion"],
        update_fields=UPDATED,
    )


def example_insertion(
    completion: Completion, verdicts: Sequence[str], *, where: str
) -> Statement | None:
    """Return the statement that does the same for one completion if `where` (SQL) holds.

    None if a completion with these verdicts has no example.
    """
    example = example_of(completion, verdicts)
    if example is None:
        return None
    return insertion(example, unique=["completion"], update=UPDATED, where=where)


def examples_mark_used(completions: QuerySet[Completion], *, run: int) -> None:
    """Note that run number `run` of the project trained on the examples of these completions."""
    Example.objects.filter(completion__in=completions, split=Split.TRAIN).update(used_in_run=run)


def completions_lock(completions: Iterable[int]) -> None:
    """Lock completions before their votes are changed: the order in which a vote locks."""
    for chunk in batched(sorted(set(completions)), CHUNK):
        rows = Completion.objects.select_for_update().filter(pk__in=chunk).order_by("pk")
        list(rows.values_list("pk"))


def examples_restore(removed: Sequence[RemovedExample]) -> None:
    """Give examples that exist again the age and the run that they had before."""
    known = {pk: (dt.datetime.fromisoformat(created), run) for pk, created, run in removed}
    for chunk in batched(sorted(known), CHUNK):
        rows = list(Example.objects.filter(pk__in=chunk))
        for row in rows:
            row.created_at, row.used_in_run = known[row.pk]
        Example.objects.bulk_update(rows, ["created_at", "used_in_run"])
