"""Creating projects and changing their settings."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import Membership, Role, User
from feedback_app.feedback.guidelines.services import guidelines_write
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import (
    Project,
)
from feedback_app.feedback.models.projects import Priority
from feedback_app.web.errors import Conflict


def project_change(
    *, project: Project, by: User, changes: Mapping[str, object], before: Project | None = None
) -> Project:
    """Update these fields only, so that concurrent changes of others stay.

    The project is locked, so that guidelines are numbered without gaps. Raises Conflict if one of
    these fields is stored with another value than in `before`.
    """
    with transaction.atomic():
        locked = Project.objects.select_for_update().get(pk=project.pk)
        fields = dict(changes)
        if before is not None and any(
            getattr(locked, name) != getattr(before, name) for name in fields
        ):
            raise Conflict("These settings were saved by somebody else at the same moment.")
        if "guidelines" in fields:
            new = guidelines_write(locked=locked, text=str(fields.pop("guidelines")), by=by)
            fields |= {"guidelines_number": locked.guidelines_number} if new else {}
        for name, value in fields.items():
            setattr(locked, name, value)
        locked.save(update_fields=["guidelines", *fields])
        audit(project=locked, actor=by, action="project.settings", target=locked.slug)
    return locked


def project_create(
    *,
    slug: str,
    name: str,
    base_model: str,
    owner: User,
    system_prompt: str = "",
    guidelines: str = "",
    **settings: Any,
) -> Project:
    """Create an empty project and make `owner` its owner."""
    with transaction.atomic():
        project = Project(
            slug=slug,
            name=name,
            base_model=base_model,
            system_prompt=system_prompt,
            **settings,
        )
        project.full_clean()
        project.save()
        if guidelines_write(locked=project, text=guidelines, by=owner):
            project.save(update_fields=["guidelines", "guidelines_number"])
        member_set(project=project, user=owner, role=Role.OWNER)
    return project


def project_priority_set(*, project: Project, priority: Priority) -> None:
    """Set a project's share of the workers. For the operator of the installation."""
    with transaction.atomic():
        Project.objects.filter(pk=project.pk).update(priority=priority)
        audit(project=project, actor=None, action="project.priority", target=priority)


def may_create_projects(user: User, memberships: Iterable[Membership] | None = None) -> bool:
    """Return whether a person may create projects: who owns one, and superusers.

    `memberships` are the person's, if they were read already.
    """
    if memberships is None:
        memberships = Membership.objects.filter(user=user, role=Role.OWNER)[:1]
    return user.is_superuser or any(one.role == Role.OWNER for one in memberships)
