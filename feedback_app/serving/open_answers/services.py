"""Services of open answers: how many a person, token or share link may have generated at a time.

The database decides, so the limit holds over all processes and hosts. An answer takes a numbered
row, which is deleted when it ends. A process that is killed leaves its rows, which expire.
"""

import datetime as dt
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone

from feedback_app.serving.models import OpenAnswer
from feedback_app.web.errors import UserError

RENEW_SECONDS = 10.0
RETRY_SECONDS = 10


class TooManyAnswers(UserError):
    """As many answers as allowed are being generated; `wait` is in seconds."""

    status = 429
    wait = RETRY_SECONDS

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} answers are being generated already. Nothing was sent: wait until one of "
            "them is complete, then try again."
        )


class Place:
    """An open answer. As a context manager it ends with the block, unless a stream holds it."""

    def __init__(self, row: OpenAnswer) -> None:
        self._row = OpenAnswer.objects.filter(pk=row.pk)
        self._renewed_at = time.monotonic()
        self._held = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._held or error is not None:
            self.end()

    def hold(self, pieces: Iterator[str]) -> "Held":
        """Return the pieces; the place ends with them."""
        self._held = True
        return Held(pieces, self)

    def renew(self) -> None:
        """Extend the place, at most every RENEW_SECONDS."""
        if time.monotonic() - self._renewed_at > RENEW_SECONDS:
            self._renewed_at = time.monotonic()
            self._row.update(until=expiry())

    def end(self) -> None:
        self._row.delete()


class Held(Iterator[str]):
    """The pieces of an open answer. Closing it closes them, also if none was ever read."""

    def __init__(self, pieces: Iterator[str], place: Place) -> None:
        self._pieces = pieces
        self._place = place

    def __next__(self) -> str:
        try:
            piece = next(self._pieces)
        except BaseException:
            self._place.end()
            raise
        self._place.renew()
        return piece

    def close(self) -> None:
        try:
            self._pieces.close()  # type: ignore[attr-defined]
        finally:
            self._place.end()


def expiry() -> dt.datetime:
    """Return the time until which an answer may send nothing: an engine may for as long."""
    return timezone.now() + dt.timedelta(seconds=settings.ENGINE_SILENCE_SECONDS + RENEW_SECONDS)


def place_take(key: str, *, limit: int) -> Place:
    """Take one of `limit` places. Raises TooManyAnswers. Call it outside transactions."""
    now = timezone.now()
    taken = dict(OpenAnswer.objects.filter(key=key).values_list("number", "until"))
    for number in range(limit):
        if number in taken:
            if taken[number] > now:
                continue
            OpenAnswer.objects.filter(key=key, number=number, until=taken[number]).delete()
        try:
            return Place(OpenAnswer.objects.create(key=key, number=number, until=expiry()))
        except IntegrityError:
            continue  # another request was first
    raise TooManyAnswers(limit)


def person_place(user_id: int) -> Place:
    """Take a place of a member. Raises TooManyAnswers."""
    return place_take(f"user-{user_id}", limit=settings.ANSWERS_PER_PERSON)


def link_place(link_id: int) -> Place:
    """Take a place of all visitors of a share link. Raises TooManyAnswers."""
    return place_take(f"link-{link_id}", limit=settings.ANSWERS_PER_LINK)


def token_place(token_id: int) -> Place:
    """Take a place of an API token. Raises TooManyAnswers."""
    return place_take(f"token-{token_id}", limit=settings.ANSWERS_PER_TOKEN)
