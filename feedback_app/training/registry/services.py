"""Services of adapters."""

from django.db import transaction
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.models import Adapter
from feedback_app.web.errors import UserError


def adapter_discard(*, adapter: Adapter, by: User) -> None:
    """Discard a version: it leaves the lists. Raises UserError if it is live."""
    with transaction.atomic():
        # it does not become live meanwhile
        project = Project.objects.select_for_update().get(pk=adapter.project_id)
        if project.live_version == adapter.name:
            raise UserError(f"{adapter.name} is live: release another version first.")
        Adapter.objects.filter(pk=adapter.pk).update(discarded_at=timezone.now())
        audit(project=adapter.project, actor=by, action="adapter.discard", target=adapter.name)


def adapter_restore(*, adapter: Adapter, by: User) -> None:
    """Restore a discarded version, whose files were kept. Raises UserError if they were not, or if
    it is locked."""
    with transaction.atomic():
        kept = Adapter.objects.filter(pk=adapter.pk, locked_at=None, deleted_at=None)
        if not kept.update(discarded_at=None):
            adapter.refresh_from_db(fields=["locked_at"])
            raise UserError(locked_text(adapter) if adapter.locked_at else expired_text(adapter))
        audit(project=adapter.project, actor=by, action="adapter.restore", target=adapter.name)


def locked_text(adapter: Adapter) -> str:
    """Return why a version that is locked cannot be used."""
    return f"{adapter.name} learned from what was erased since: it is locked and will be deleted."


def expired_text(adapter: Adapter) -> str:
    """Return why a version without files cannot be used."""
    return f"The files of {adapter.name} were deleted some time after it was discarded."
