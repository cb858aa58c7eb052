"""The notice on the annotation page that pairs wait."""

from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.desk.notices import Notice
from feedback_app.feedback.models import Project
from feedback_app.training.gate.people.selectors import pairs_waiting


def pairs_notice(project: Project, user: User) -> Notice | None:
    """Return the notice, or None if no pair waits for this person."""
    count = pairs_waiting(project, user)
    if not count:
        return None
    text = "1 pair of answers waits" if count == 1 else f"{count} pairs of answers wait"
    return Notice(
        f"{text} for you. Your choices decide whether a new version goes live.",
        reverse("pairs", args=[project.slug]),
        "Compare answers",
    )
