"""What the pages show that start a sampling and follow it."""

from typing import Any

from feedback_app.db.bounded_count import LISTED, counted
from feedback_app.feedback.models import BASE_VERSION, Project
from feedback_app.feedback.prompts.selectors import sampling_latest

#: Versions that a sampling can be asked of, besides live and base: the newest.
VERSIONS_OFFERED = 20


def sampling_panel(project: Project) -> dict[str, Any]:
    """Return the context of templates/feedback/_sampling.html."""
    return {
        "sampling": sampling_latest(project),
        "prompts": counted(project.prompts.asked(), most=LISTED),
        "in_queue": counted(project.completions.in_queue(), most=LISTED),
        "unjudged": counted(project.completions.in_queue().filter(vote_count=0), most=LISTED),
        "most": LISTED,
        "sampled_versions": sampled_versions(project),
    }


def sampled_versions(project: Project) -> list[str]:
    """Return the versions that can answer: live, base, and the newest others."""
    newest = project.adapters.usable().newest_first().values_list("name", flat=True)
    names = [project.live_version, BASE_VERSION, *newest[:VERSIONS_OFFERED]]
    return list(dict.fromkeys(names))
