"""Where versions may be pushed: hf://owner/name and s3://bucket/prefix, below PUSH_DESTINATIONS."""

import re
from dataclasses import dataclass

from django.conf import settings

from feedback_app.web.errors import UserError

HUB, S3 = "hf", "s3"
FORMS = "hf://owner/name or s3://bucket/prefix"
#: Characters of a destination.
LONGEST = 300
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_FOLDER = r"[A-Za-z0-9_@+=-][A-Za-z0-9._@+=-]{0,99}"
_PLACES = {
    HUB: re.compile(rf"{_NAME}/{_NAME}"),
    S3: re.compile(rf"{_BUCKET}(?:/{_FOLDER})*"),
}


@dataclass(frozen=True)
class Destination:
    """A place that `kind` ("hf" or "s3") says how to reach."""

    kind: str
    place: str

    def __str__(self) -> str:
        return f"{self.kind}://{self.place}"


def pushes_offered() -> bool:
    """Return whether this installation pushes versions at all."""
    return bool(settings.PUSH_DESTINATIONS)


def destination_of(text: str) -> Destination:
    """Return the destination that a person or a command names. Raises UserError if it has another
    form, or is outside PUSH_DESTINATIONS."""
    if not pushes_offered():
        raise UserError("Versions are not pushed from here: PUSH_DESTINATIONS is not set.")
    kind, _, place = text.strip().rstrip("/").partition("://")
    pattern = _PLACES.get(kind)
    if pattern is None or not pattern.fullmatch(place) or ".." in place:
        raise UserError(f"{text[:100]} is no destination: write {FORMS}.")
    if len(text) > LONGEST:
        raise UserError(f"A destination has at most {LONGEST} characters.")
    found = Destination(kind, place)
    if not any(within(str(found), allowed.rstrip("/")) for allowed in settings.PUSH_DESTINATIONS):
        raise UserError(
            f"{found} is not among the destinations of this installation: "
            f"{', '.join(settings.PUSH_DESTINATIONS)}."
        )
    return found


def within(destination: str, allowed: str) -> bool:
    """Return whether a destination is an allowed one, or below it."""
    return destination == allowed or destination.startswith(f"{allowed}/")
