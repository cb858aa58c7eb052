"""A run's snapshot as export rows: the examples that a version was trained and compared on."""

from collections.abc import Iterator

from feedback_app.feedback.exports.rows import ExportRow, export_row, in_chunks, votes_along
from feedback_app.training.models import Snapshot


def snapshot_rows(snapshot: Snapshot, *, votes: bool = False) -> Iterator[ExportRow]:
    """Yield every example as of the run's request, in the order of its completions.

    Votes are the current ones: a snapshot stores examples, not votes.
    """
    items = snapshot.items.select_related("completion__prompt").defer(
        "completion__token_ids", "completion__prompt_token_ids"
    )
    if votes:
        items = items.prefetch_related(votes_along())
    for item in in_chunks(items, key="completion_id"):
        yield export_row(
            item.completion,
            label=item.desirable,
            weight=item.weight,
            split=item.split,
            votes=votes,
        )
