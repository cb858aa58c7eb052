"""Which version each run was started from, and what follows from that: a version that was started
from another has learned what that one had."""

from collections.abc import Iterable, Mapping

from django.db.models.fields.json import KeyTextTransform

from feedback_app.feedback.models import Project
from feedback_app.feedback.prompts.completions import version_number
from feedback_app.training.runs.config import start_version

#: The number of the version that a run was started from, by the run's number.
Starts = Mapping[int, int]


def starts_of(project: Project) -> dict[int, int]:
    """Return the starts of the project's runs; runs from the base are left out."""
    before = KeyTextTransform("start_adapter", "config")
    runs = project.runs.filter(config__start_adapter__isnull=False).newest_first()
    rows = runs.annotate(before=before).values_list("number", "before")
    starts = ((number, start_version({"start_adapter": path})) for number, path in rows)
    return {number: version_number(start) for number, start in starts if version_number(start)}


def runs_before(number: int, starts: Starts) -> list[int]:
    """Return the numbers of the versions that a run's version was started from, nearest first."""
    found: list[int] = []
    while (number := starts.get(number, 0)) and number not in found:
        found.append(number)
    return found


def runs_after(numbers: Iterable[int], starts: Starts) -> set[int]:
    """Return the numbers of the runs that were started from these runs' versions, also through
    others."""
    found: set[int] = set()
    fresh = set(numbers)
    while fresh:
        fresh = {run for run, start in starts.items() if start in fresh} - found
        found |= fresh
    return found
