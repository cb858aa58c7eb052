"""Writing the examples of a snapshot in pieces.

On SQLite a transaction keeps all other writers waiting, and a large snapshot takes a minute. There
a worker writes it in pieces, a transaction each, between which people vote. Everywhere else all of
it is one piece, in the caller's transaction.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from feedback_app.feedback.models import Project
from feedback_app.training.models import Snapshot, SnapshotItem

PIECE_ROWS = 5_000
#: Larger than every id.
END = 2**63 - 1


@dataclass(frozen=True)
class Pieces:
    """How a snapshot is written. `part` begins the transaction of a piece; `rows` is how many
    examples a piece has, None for all of them."""

    part: Callable[[], AbstractContextManager[None]] = nullcontext
    rows: int | None = None

    def ranges(self, project: Project) -> Iterator[tuple[int, int]]:
        """Yield the ranges of the pieces, as answer ids after the first up to the second; together
        they have all ids."""
        after, examples = 0, project.examples.order_by("pk").values_list("pk", flat=True)
        while self.rows is not None:
            upto = examples.filter(pk__gt=after)[self.rows - 1 : self.rows].first()
            if upto is None:
                break
            yield after, upto
            after = upto
        yield after, END


#: All in one piece, in the caller's transaction.
WHOLE = Pieces()


def items_remove(snapshot: Snapshot, pieces: Pieces) -> None:
    """Delete what there is of a snapshot that was not finished."""
    items = snapshot.items.order_by("pk").values_list("pk", flat=True)
    while pks := list(items[: pieces.rows]):
        with pieces.part():
            SnapshotItem.objects.filter(pk__in=pks).delete()
