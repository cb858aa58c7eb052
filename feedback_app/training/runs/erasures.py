"""Votes of erased people in the live version, for the Train page."""

from feedback_app.feedback.models import Project
from feedback_app.feedback.prompts.completions import version_number
from feedback_app.training.models import Erasure

ERASURES_READ = 200


def erased_votes(project: Project) -> int:
    """Return how many votes of people who were erased since have trained the live version.

    Reads the latest erasures: versions that older ones affected have been replaced.
    """
    number = version_number(project.live_version)
    if not number:
        return 0
    recent = Erasure.objects.filter(project=project).order_by("-created_at")[:ERASURES_READ]
    return sum(erasure.votes for erasure in recent if number in erasure.runs)
