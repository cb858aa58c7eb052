"""The list of examples: filters, orders and their query parameters.

The cost does not depend on the table's size: queries follow an index and count and list at most
`bounded_count.COUNTED` rows. What no index answers looks through WINDOW rows only.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest

from feedback_app.accounts.models import Membership
from feedback_app.db import bounded_count
from feedback_app.feedback.models import (
    EDITED_VERSION,
    Completion,
    Correction,
    Example,
    Project,
    Split,
    Vote,
)
from feedback_app.feedback.prompts.selectors import distinct_values
from feedback_app.web.forms import query_choice, query_strict
from feedback_app.web.word_diff import differences

LABELS = ("", "up", "down", "tie")
SPLITS = ("", *Split.values)
SOURCES = ("", "annotate", "demo", "import", "api", "sampled")
NEWEST = ("-created_at", "-completion")
OLDEST = ("created_at", "completion")
#: Rows that filters and orders without an index of their own look through.
WINDOW = 2_000
#: Other orders than these two sort the newest WINDOW rows only, never a whole table.
SORTS: dict[str, tuple[str, ...]] = {
    "newest": NEWEST,
    "oldest": OLDEST,
    "votes": ("-completion__vote_count", "-completion"),
    "weight": ("weight", "-completion"),
    "version": ("completion__version", "-completion"),
}
#: The same for completions without an example.
TIE_SORTS: dict[str, tuple[str, ...]] = {
    "oldest": ("pk",),
    "votes": ("-vote_count", "-pk"),
    "version": ("version", "-pk"),
}
PARAMETERS = ("label", "split", "source", "version", "sort", "page")


@dataclass(frozen=True)
class ExampleFilter:
    """The list's state, as in the URL. Empty: no restriction."""

    label: str
    split: str
    source: str
    version: str
    sort: str

    @classmethod
    def of(cls, request: HttpRequest, *, versions: list[str]) -> "ExampleFilter":
        """Read the state from a request. Raise UserError for unknown parameters and values."""
        query_strict(request, PARAMETERS)
        return cls(
            label=query_choice(request, "label", LABELS),
            split=query_choice(request, "split", SPLITS),
            source=query_choice(request, "source", SOURCES),
            version=query_choice(request, "version", ("", *versions)),
            sort=query_choice(request, "sort", tuple(SORTS)),
        )

    def query(self, **changes: str) -> str:
        """Return the state as a query string, without defaults."""
        state = {
            "label": self.label,
            "split": self.split,
            "source": self.source,
            "version": self.version,
            "sort": "" if self.sort == "newest" else self.sort,
        } | changes
        return urlencode({name: value for name, value in state.items() if value})

    @property
    def narrowed(self) -> bool:
        return bool(self.label or self.split or self.source or self.version)

    @property
    def windowed(self) -> bool:
        """Whether only the newest rows, or the oldest, are looked through."""
        other = self.sort not in ("newest", "oldest")
        return bool(self.source or self.version or self.label == "tie" or other)

    @property
    def oldest(self) -> bool:
        return self.sort == "oldest"

    def select(self, project: Project) -> QuerySet[Any]:
        """Return the matching examples in order, or completions with votes but no example."""
        return self.ties(project) if self.label == "tie" else self.examples(project)

    def examples(self, project: Project) -> QuerySet[Example]:
        rows = project.examples.all()
        if self.version:
            rows = rows.filter(pk__in=self.edge(project.completions.filter(version=self.version)))
        elif self.windowed:
            order = OLDEST if self.oldest else NEWEST
            last = rows.order_by(*order).values_list("created_at", flat=True)[WINDOW - 1 : WINDOW]
            if last:
                rows = rows.filter(**{f"created_at__{'l' if self.oldest else 'g'}te": last[0]})
        wanted = {"split": self.split, "completion__source": self.source}
        rows = rows.filter(**{name: value for name, value in wanted.items() if value})
        if self.label:
            rows = rows.filter(desirable=self.label == "up")
        return (
            rows.select_related("completion__prompt")
            .prefetch_related(Prefetch("completion__votes", Vote.objects.with_person()))
            .defer("completion__prompt_token_ids", "completion__token_ids")
            .order_by(*SORTS[self.sort])
        )

    def edge(self, rows: QuerySet[Completion]) -> list[int]:
        """Return the ids of the first WINDOW rows; a subquery would make PostgreSQL read the whole
        table that is joined with it."""
        order = "pk" if self.oldest else "-pk"
        return list(rows.order_by(order).values_list("pk", flat=True)[:WINDOW])

    def ties(self, project: Project) -> QuerySet[Completion]:
        rows = project.completions.all()
        # ties have ups and downs; the others have votes, but no text
        looked_at = {*self.edge(rows.filter(contested=True, decided="")), *self.edge(rows)}
        wanted = Q(pk__in=looked_at, vote_count__gt=0, example=None)
        if self.split:
            wanted &= Q(prompt__split=self.split)
        if self.source:
            wanted &= Q(source=self.source)
        if self.version:
            wanted &= Q(version=self.version)
        return (
            rows.filter(wanted)
            .select_related("prompt", "example")
            .prefetch_related(Prefetch("votes", Vote.objects.with_person()))
            .defer("prompt_token_ids", "token_ids")
            .order_by(*TIE_SORTS.get(self.sort, ("-pk",)))
        )


def answers_of(rows: Iterable[Example | Completion]) -> list[Completion]:
    """Return the completions of a page; a corrected one has `pieces`, its text with the words
    marked that differ from the original's."""
    found = [row.completion if isinstance(row, Example) else row for row in rows]
    corrected = {row.pk: row for row in found if row.version == EDITED_VERSION}
    corrections = Correction.objects.filter(completion__in=corrected).select_related("original")
    for correction in corrections.defer("original__token_ids", "original__prompt_token_ids"):
        row = corrected[correction.completion_id]
        before, after, _ = differences(correction.original.text, row.text)
        row.original_pieces, row.pieces = before, after  # type: ignore[attr-defined]
    return found


def versions_answered(project: Project) -> list[str]:
    """Return the versions that have completions in the project."""
    return distinct_values(project=project, field="version")


def examples_counted(project: Project) -> dict[str, int]:
    """Return ExampleQuerySet.counts, each bounded by `bounded_count.COUNTED`."""
    classes = {
        f"{split}_{name}": bounded_count.counted_of(
            Membership, Example, f"split = '{split}' AND {desirable}"
        )
        for split in Split.values
        for name, desirable in (("up", "desirable"), ("down", "NOT desirable"))
    }
    # a row of this project to hang the subqueries on: the requesting user has one
    asked = Membership.objects.filter(project=project).order_by()
    return dict(zip(classes, asked.values_list(*classes.values())[0], strict=True))
