"""The list of examples: filters, orders and their query parameters.

The cost does not depend on the table's size: queries follow an index and count and list at most
`bounded_count.COUNTED` rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest

from feedback_app.accounts.models import Membership
from feedback_app.db import bounded_count
from feedback_app.feedback.models import Completion, Example, Project, Split, Vote
from feedback_app.feedback.prompts.selectors import distinct_values
from feedback_app.web.forms import query_choice, query_strict

LABELS = ("", "up", "down", "tie")
SPLITS = ("", "train", "heldout")
SOURCES = ("", "annotate", "demo", "import", "api", "sampled")
NEWEST = ("-created_at", "-completion")
OLDEST = ("created_at", "completion")
#: Other orders than these two sort the newest COUNTED rows only, never a whole table.
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

    def select(self, project: Project) -> QuerySet[Any]:
        """Return the matching examples in order, or completions with votes but no example."""
        return self.ties(project) if self.label == "tie" else self.examples(project)

    def examples(self, project: Project) -> QuerySet[Example]:
        wanted = {
            "split": self.split,
            "completion__source": self.source,
            "completion__version": self.version,
        }
        rows = project.examples.filter(**{name: value for name, value in wanted.items() if value})
        if self.label:
            rows = rows.filter(desirable=self.label == "up")
        if self.sort not in ("newest", "oldest"):
            newest = rows.order_by(*NEWEST).values("pk")[: bounded_count.COUNTED]
            rows = Example.objects.filter(pk__in=newest)
        return (
            rows.select_related("completion__prompt")
            .prefetch_related(Prefetch("completion__votes", Vote.objects.with_person()))
            .defer("completion__prompt_token_ids", "completion__token_ids")
            .order_by(*SORTS[self.sort])
        )

    def ties(self, project: Project) -> QuerySet[Completion]:
        wanted = Q(vote_count__gt=0, example=None)
        if self.split:
            wanted &= Q(prompt__split=self.split)
        if self.source:
            wanted &= Q(source=self.source)
        if self.version:
            wanted &= Q(version=self.version)
        return (
            project.completions.filter(wanted)
            .select_related("prompt", "example")
            .prefetch_related(Prefetch("votes", Vote.objects.with_person()))
            .defer("prompt_token_ids", "token_ids")
            .order_by(*TIE_SORTS.get(self.sort, ("-pk",)))
        )


class CountedPaginator(Paginator[Any]):
    """Pages over the first `bounded_count.COUNTED` rows."""

    @cached_property
    def found(self) -> int:
        return bounded_count.counted(self.object_list)  # type: ignore[arg-type]  # always a queryset

    @cached_property
    def count(self) -> int:
        return min(self.found, bounded_count.COUNTED)

    @property
    def more(self) -> bool:
        """Whether there are rows beyond the last page."""
        return self.found > self.count


def answers_of(rows: Iterable[Example | Completion]) -> list[Completion]:
    """Return the completions of a page."""
    return [row.completion if isinstance(row, Example) else row for row in rows]


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
