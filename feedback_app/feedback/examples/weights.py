"""Weights that admins give to single examples; 0 excludes one from training."""

from collections.abc import Iterable

from django.db import transaction

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.examples.services import examples_refresh
from feedback_app.feedback.models import Completion, Project
from feedback_app.web.errors import UserError


def examples_weigh(
    *, project: Project, completions: Iterable[int], weight: float | None, by: User
) -> int:
    """Set the weight of the examples of these completions, in [0, 1]; None: as the votes say.

    Their examples follow at once; snapshots that were taken stay. Return how many completions of
    the project were changed. Raise UserError for another weight.
    """
    if weight is not None and not 0 <= weight <= 1:
        raise UserError("A weight is between 0 and 1.")
    with transaction.atomic():
        own = Completion.objects.filter(project=project, pk__in=list(completions))
        locked = list(own.order_by("pk").select_for_update().values_list("pk", flat=True))
        changed = Completion.objects.filter(pk__in=locked).update(training_weight=weight)
        examples_refresh(locked)
        said = "as voted" if weight is None else f"{weight:g}"
        target = f"{said}: {', '.join(str(pk) for pk in locked)}"
        if locked:
            audit(project=project, actor=by, action="examples.weigh", target=target[:200])
    return changed
