"""How much of a batch one person may decide: half, where three annotators could judge it."""

from django.db.models import Count, Exists

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.access import PAUSED
from feedback_app.feedback.models import Project
from feedback_app.training.models import BlindPair, PairVote

#: With fewer, half of the pairs could be too much to ask of the others.
LEAST_ANNOTATORS = 3


def work_is_shared(project: Project) -> bool:
    """Return whether enough annotators could judge the project's pairs."""
    rows = project.memberships.filter(role=Role.ANNOTATOR, user__is_active=True)
    found = rows.exclude(Exists(PAUSED)).values_list("pk")[:LEAST_ANNOTATORS]
    return len(found) == LEAST_ANNOTATORS


def batches_at_limit(user: User, project: Project) -> list[int]:
    """Return the open batches of which this person has judged half."""
    own = (
        PairVote.objects.filter(user=user, pair__batch__project=project, pair__batch__end="")
        .exclude(choice=PairVote.Choice.SKIP)
        .order_by()
    )
    judged = dict(own.values_list("pair__batch").annotate(n=Count("pk")))
    if not judged or not work_is_shared(project):
        return []
    pairs = BlindPair.objects.filter(batch__in=judged).order_by().values_list("batch")
    return [batch for batch, n in pairs.annotate(n=Count("pk")) if 2 * judged[batch] >= n]
