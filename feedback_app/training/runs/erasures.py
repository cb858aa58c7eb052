"""What the Train page says of people who were erased."""

from feedback_app.feedback.models import Project
from feedback_app.feedback.prompts.completions import version_number
from feedback_app.training.models import Erasure

LOOKED_AT = 200


def erased_votes(project: Project) -> int:
    """How many votes of people erased since have trained the live version; 0: it is free of them.

    The latest erasures are looked at: an older one's versions have long been replaced.
    """
    number = version_number(project.live_version)
    if not number:
        return 0
    recent = Erasure.objects.filter(project=project).order_by("-created_at")[:LOOKED_AT]
    return sum(erasure.votes for erasure in recent if number in erasure.runs)
