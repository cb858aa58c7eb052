"""Votes of erased people in the live version, for the Train page."""

from feedback_app.feedback.models import Project
from feedback_app.feedback.prompts.completions import version_number
from feedback_app.training.models import Erasure
from feedback_app.training.runs.starts import runs_before, starts_of

ERASURES_READ = 200


def erased_votes(project: Project) -> int:
    """Return how many votes of people who were erased since have trained the live version, or a
    version that it was started from.

    Reads the latest erasures: versions that older ones affected have been replaced.
    """
    if not version_number(project.live_version):
        return 0
    recent = list(Erasure.objects.filter(project=project).order_by("-created_at")[:ERASURES_READ])
    if not recent:
        return 0
    learned = runs_behind(project, project.live_version)
    return sum(erasure.votes for erasure in recent if learned.intersection(erasure.runs))


def runs_behind(project: Project, version: str) -> set[int]:
    """Return the numbers of the runs that a version learned from: its own, and those of the
    versions that it was started from."""
    number = version_number(version)
    return {number, *runs_before(number, starts_of(project))} if number else set()
