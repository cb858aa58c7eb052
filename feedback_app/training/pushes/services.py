"""Services of pushes: requested by an admin or a command, sent by a worker."""

from collections.abc import Mapping
from pathlib import Path

import structlog
from django.db import transaction
from django.utils import timezone

from artifact_store.errors import StoreError
from artifact_store.objects import files_put
from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.db.claims import Claim
from feedback_app.feedback.access import ARCHIVED
from feedback_app.training.models import Adapter, VersionPush
from feedback_app.training.pushes.destinations import HUB, destination_of
from feedback_app.training.pushes.hub import hub_push
from feedback_app.training.registry.download import VERDICT, adapter_files, verdict_file
from feedback_app.training.registry.files import BadAdapter, adapter_fetch
from feedback_app.training.registry.services import expired_text, locked_text
from feedback_app.web.errors import UserError

log = structlog.get_logger(__name__)

PushClaim = Claim[VersionPush]
Status = VersionPush.Status
#: Of workers that die while they send.
MAX_CLAIMS = 5


def push_request(*, adapter: Adapter, destination: str, by: User | None) -> VersionPush:
    """Queue a push of a version's files; it replaces what is known of an earlier one.

    Raises UserError for a destination that is not allowed, for a version without files, and while
    an earlier push of the version is in progress.
    """
    place = destination_of(destination)
    refuse_without_files(adapter)
    with transaction.atomic():
        rows = VersionPush.objects.select_for_update()
        push, fresh = rows.get_or_create(
            adapter=adapter, defaults={"destination": str(place), "requested_by": by}
        )
        if not fresh:
            if push.active:
                raise UserError(f"{adapter.name} is being pushed to {push.destination}: wait.")
            push.destination, push.requested_by = str(place), by
            push.status, push.error, push.url = Status.QUEUED, "", ""
            push.created_at, push.finished_at = timezone.now(), None
            push.attempt, push.dispatched_at = 0, None
            push.save()
        audit(
            project=adapter.project,
            actor=by,
            action="adapter.push",
            target=f"{adapter.name} to {place}",
            reason=f"To {place}",
        )
    return push


def refuse_without_files(adapter: Adapter) -> None:
    """Raise UserError for a version that is locked or has no files any more."""
    if adapter.locked_at is not None:
        raise UserError(locked_text(adapter))
    if adapter.deleted_at is not None:
        raise UserError(expired_text(adapter))


def push_execute(adapter_id: int) -> bool:
    """Send the files of a queued push; return False if another worker does, or it has ended.

    The same files are sent again after a crash: nothing there is changed by that.
    """
    rows = VersionPush.objects.select_related("adapter__project", "adapter__run")
    claim = PushClaim.take(rows.filter(pk=adapter_id))
    if claim is None:
        return False
    push = claim.row
    with claim.kept_alive():
        try:
            url = push_send(push, attempt=claim.attempt)
        except (UserError, BadAdapter, StoreError, OSError) as error:
            log.warning("push_failed", adapter=push.adapter.name, why=str(error))
            claim.update(status=Status.FAILED, error=str(error), finished_at=timezone.now())
            return True
    claim.update(status=Status.DONE, url=url, finished_at=timezone.now())
    log.info("version_pushed", adapter=push.adapter.name, destination=push.destination)
    return True


def push_send(push: VersionPush, *, attempt: int) -> str:
    """Send the files and return the URL that has them. Raises what push_execute catches."""
    if attempt > MAX_CLAIMS:
        raise UserError(f"{MAX_CLAIMS} workers in a row died while sending the files.")
    if push.adapter.project.archived_at is not None:
        raise UserError(ARCHIVED)
    # what is allowed may have changed since
    place = destination_of(push.destination)
    files = pushed_files(push.adapter)
    if place.kind == HUB:
        return hub_push(place.place, files, message=f"Version {push.adapter.name}")
    folder = f"{place}/{push.adapter.name.replace('@', '-')}"
    files_put(folder, files)
    return folder


def pushed_files(adapter: Adapter) -> Mapping[str, Path | bytes]:
    """Return what the version's ZIP archive has, by name, after verifying the hashes.

    Raises UserError, BadAdapter and StoreError.
    """
    refuse_without_files(adapter)
    directory = adapter_fetch(adapter)
    files: dict[str, Path | bytes] = {name: directory / name for name in adapter_files(adapter)}
    return files | {VERDICT: verdict_file(adapter)}
