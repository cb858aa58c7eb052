"""Changing what a project is set to."""

from collections.abc import Mapping

from django.db import transaction

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.feedback.services import audit
from feedback_app.feedback.services_guidelines import guidelines_write


def project_change(*, project: Project, by: User, changes: Mapping[str, object]) -> Project:
    """Writes these fields and nothing else: what other deeds write meanwhile stays.

    Two admins at once change one after the other, so guidelines' numbers follow without a gap.
    """
    with transaction.atomic():
        locked = Project.objects.select_for_update().get(pk=project.pk)
        fields = dict(changes)
        if "guidelines" in fields:
            new = guidelines_write(locked=locked, text=str(fields.pop("guidelines")), by=by)
            fields |= {"guidelines_number": locked.guidelines_number} if new else {}
        for name, value in fields.items():
            setattr(locked, name, value)
        locked.save(update_fields=["guidelines", *fields])
        audit(project=locked, actor=by, action="project.settings", target=locked.slug)
    return locked
