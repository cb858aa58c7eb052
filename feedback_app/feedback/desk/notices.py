"""Notices on the annotation page about work elsewhere, which apps of higher layers provide."""

from collections.abc import Callable
from dataclasses import dataclass

from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.db.bounded_count import counted
from feedback_app.feedback.models import Project


@dataclass(frozen=True)
class Notice:
    """A sentence with a link. `label`: what the link does."""

    text: str
    url: str
    label: str


#: More flagged items are shown as 'more than'.
FLAGS_COUNTED = 100

NoticeSource = Callable[[Project, User], Notice | None]
_sources: list[NoticeSource] = []


def notices_from(source: NoticeSource) -> None:
    """Register a source. Call it when the app starts (AppConfig.ready)."""
    if source not in _sources:
        _sources.append(source)


def notices(project: Project, user: User) -> list[Notice]:
    """Return the notices for a person who opens the annotation page."""
    found = [source(project, user) for source in _sources]
    return [notice for notice in found if notice is not None]


def flags_notice(project: Project) -> Notice | None:
    """Return the notice for an admin, or None if no flagged item waits."""
    count = counted(project.completions.filter(flagged=True), most=FLAGS_COUNTED)
    if not count:
        return None
    many = f"more than {FLAGS_COUNTED}" if count > FLAGS_COUNTED else str(count)
    items = "flagged item waits" if count == 1 else "flagged items wait"
    return Notice(
        f"{many} {items} for an admin.".capitalize(),
        reverse("flags", args=[project.slug]),
        "Look at the flags",
    )
