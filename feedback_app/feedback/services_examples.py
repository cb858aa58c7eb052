"""Bringing many examples up to date at once, and back as they were."""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence

from feedback_app.feedback.amounts import amounts_of
from feedback_app.feedback.models import Completion, Example, Vote

CHUNK = 500
#: completion, created_at (ISO 8601), used_in_run
Kept = tuple[int, str, int | None]


def examples_refresh(completions: Iterable[int]) -> list[Kept]:
    """Makes the examples of these completions what their votes say now, and returns what went.

    Call it in the transaction that changed the votes. Rows are locked in the order of their ids.
    """
    gone: list[Kept] = []
    for chunk in chunks(sorted(set(completions))):
        light = Completion.objects.select_related("prompt").defer("token_ids", "prompt_token_ids")
        rows = list(light.select_for_update(of=("self",)).filter(pk__in=chunk).order_by("pk"))
        verdicts: dict[int, list[str]] = {row.pk: [] for row in rows}
        votes = Vote.objects.standing().filter(completion__in=chunk)
        for pk, verdict in votes.values_list("completion_id", "verdict"):
            verdicts[pk].append(verdict)
        wanted = []
        for row in rows:
            row.vote_count = len(verdicts[row.pk])
            row.contested = len(set(verdicts[row.pk])) > 1
            amounts = amounts_of(row, verdicts[row.pk])
            if amounts is not None:
                wanted.append(
                    Example(
                        completion=row,
                        project_id=row.project_id,
                        desirable=amounts.desirable,
                        weight=amounts.weight,
                        split=row.prompt.split,
                    )
                )
        Completion.objects.bulk_update(rows, ["vote_count", "contested"])
        without = set(chunk) - {example.pk for example in wanted}
        old = Example.objects.filter(pk__in=without)
        gone += [
            (pk, created.isoformat(), run)
            for pk, created, run in old.values_list("pk", "created_at", "used_in_run")
        ]
        old.delete()
        Example.objects.bulk_create(
            wanted,
            update_conflicts=True,
            unique_fields=["completion"],
            update_fields=["desirable", "weight", "split", "updated_at"],
        )
    return gone


def completions_lock(completions: Iterable[int]) -> None:
    """Locks them before their votes are touched: the order in which a vote takes its locks."""
    for chunk in chunks(sorted(set(completions))):
        rows = Completion.objects.select_for_update().filter(pk__in=chunk).order_by("pk")
        list(rows.values_list("pk"))


def examples_remember(kept: Sequence[Kept]) -> None:
    """Examples that are there again are as old as they were, and used in the run they were."""
    known = {pk: (dt.datetime.fromisoformat(created), run) for pk, created, run in kept}
    for chunk in chunks(sorted(known)):
        rows = list(Example.objects.filter(pk__in=chunk))
        for row in rows:
            row.created_at, row.used_in_run = known[row.pk]
        Example.objects.bulk_update(rows, ["created_at", "used_in_run"])


def chunks(ids: list[int]) -> Iterator[list[int]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
