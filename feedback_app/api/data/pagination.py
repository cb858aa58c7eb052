"""Cursor pagination: stable while rows are added, without a total count."""

import base64
import binascii
from typing import TypeVar

from django.db.models import Model, QuerySet

from feedback_app.api.data.schemas import PageQuery
from feedback_app.api.errors import ApiError

Row = TypeVar("Row", bound=Model)


def cursor_of(listing: str, pk: int) -> str:
    """Return the opaque cursor of the last row of a page."""
    return base64.urlsafe_b64encode(f"{listing}:{pk}".encode()).decode().rstrip("=")


def cursor_read(listing: str, cursor: str) -> int:
    """Return the row's primary key. Raises ApiError for a cursor of another list."""
    try:
        name, _, pk = (
            base64.b64decode(
                cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True
            )
            .decode()
            .partition(":")
        )
        if name != listing or not pk.isdecimal() or int(pk) >= 2**63:
            raise ValueError
        return int(pk)
    except (ValueError, binascii.Error) as error:
        raise ApiError(
            400,
            "cursor must be the next_cursor of a page of this list.",
            "invalid_value",
            param="cursor",
        ) from error


def page_of(rows: QuerySet[Row], listing: str, query: PageQuery) -> tuple[list[Row], str | None]:
    """Return the rows after the cursor, ordered by primary key, and the next cursor."""
    if query.cursor is not None:
        rows = rows.filter(pk__gt=cursor_read(listing, query.cursor))
    # One row more shows whether there is a next page. The keys are read first: PostgreSQL may read
    # a joined table from its beginning up to the cursor.
    keys = rows.select_related(None).order_by("pk").values_list("pk", flat=True)
    found = list(keys[: query.limit + 1])
    page = list(rows.filter(pk__in=found[: query.limit]).order_by("pk"))
    return page, cursor_of(listing, found[-2]) if len(found) > query.limit else None
