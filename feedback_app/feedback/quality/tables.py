"""The tables of the quality page: columns, sorting and their query parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest

from feedback_app.feedback.quality.selectors import Pair, Person, Quality
from feedback_app.web.forms import query_choice, query_strict

PARAMETERS = ("show", "sort", "page")
SHOWN = ("people", "pairs")


@dataclass(frozen=True)
class Column:
    """A column, its query parameter and its sort value; rows without a value go last."""

    key: str
    label: str
    value: Callable[[Any], Any]
    # numbers start with the value that needs attention
    ascending: bool = False


def person(
    key: str, label: str, value: Callable[[Person], Any], *, ascending: bool = False
) -> Column:
    return Column(key, label, value, ascending)


def pair(key: str, label: str, value: Callable[[Pair], Any], *, ascending: bool = False) -> Column:
    return Column(key, label, value, ascending)


PEOPLE = (
    person("votes", "Votes", lambda p: p.votes),
    person("name", "Person", lambda p: p.name.lower(), ascending=True),
    person("pace", "Votes per hour", lambda p: p.per_hour),
    person("agreement", "Agrees with majority", lambda p: p.agreement, ascending=True),
    person("overturned", "Overturned labels", lambda p: p.overturned),
    person("gold", "Gold", lambda p: p.gold_share, ascending=True),
    person("hasty", "Hasty", lambda p: p.hasty_share),
    person("skips", "Skipped", lambda p: p.skip_rate),
    person("flags", "Flagged", lambda p: p.flags),
    person("aside", "Set aside", lambda p: p.set_aside),
)
PAIRS = (
    pair("shared", "Answers in common", lambda p: p.alpha.units),
    pair("alpha", "α", lambda p: p.alpha.value, ascending=True),
    pair("name", "Pair", lambda p: (p.first.lower(), p.second.lower()), ascending=True),
)
COLUMNS = {"people": PEOPLE, "pairs": PAIRS}


@dataclass(frozen=True)
class QualityView:
    """The page's state, as in the URL."""

    show: str
    sort: str

    @classmethod
    def of(cls, request: HttpRequest) -> "QualityView":
        """Read the state from a request. Raise UserError for unknown parameters and values."""
        query_strict(request, PARAMETERS)
        show = query_choice(request, "show", SHOWN)
        return cls(show, query_choice(request, "sort", tuple(c.key for c in COLUMNS[show])))

    def query(self, **changes: str) -> str:
        """Return the state as a query string, without defaults."""
        state = {"show": self.show, "sort": self.sort} | changes
        if state["show"] == SHOWN[0]:
            del state["show"]
        return urlencode(state)

    def headers(self) -> dict[str, tuple[str, str, str]]:
        """Return (label, its query, aria-sort or empty) by column."""
        return {
            column.key: (
                column.label,
                self.query(sort=column.key),
                ("ascending" if column.ascending else "descending")
                if column.key == self.sort
                else "",
            )
            for column in COLUMNS[self.show]
        }

    def rows(self, found: Quality) -> list[Any]:
        """Return the table's rows in order; rows without a value go last."""
        rows: list[Any] = list(found.people if self.show == "people" else found.pairs)
        column = next(c for c in COLUMNS[self.show] if c.key == self.sort)
        with_value = [row for row in rows if column.value(row) is not None]
        with_value.sort(key=column.value, reverse=not column.ascending)
        return with_value + [row for row in rows if column.value(row) is None]
