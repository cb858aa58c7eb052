"""Changes of the live version without a person: automatic releases and traffic splits."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from feedback_app.db.claims import Claim
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.models import LiveVersionClaim, TrafficSplit
from feedback_app.serving.releases.selectors import adapters_to_release
from feedback_app.serving.releases.services import release_promote
from feedback_app.serving.traffic_splits.assignments import RUNNING
from feedback_app.serving.traffic_splits.services import split_watch
from feedback_app.training.models import Adapter
from feedback_app.web.errors import UserError

log = structlog.get_logger(__name__)


@contextmanager
def live_version_claimed(project_id: int) -> Iterator[bool]:
    """Claim the project's live version for the block; yield False if another worker has it."""
    LiveVersionClaim.objects.get_or_create(project_id=project_id)
    claim = Claim.take(LiveVersionClaim.objects.filter(pk=project_id))
    if claim is None:
        yield False
        return
    try:
        with claim.kept_alive():
            yield True
    finally:
        claim.update(heartbeat_at=None)


def release_automatically(adapter_id: int) -> None:
    """Release a gate winner that is due; do nothing while another worker is at it.

    A failure is logged: the next tick of the scheduler tries again.
    """
    project_id = Adapter.objects.values_list("project", flat=True).get(pk=adapter_id)
    with live_version_claimed(project_id) as claimed:
        # read under the claim: another delivery may have released it just now
        adapter = adapters_to_release().filter(pk=adapter_id).first() if claimed else None
        if adapter is None:
            return
        try:
            release_promote(
                project=adapter.project,
                adapter=adapter,
                by=None,
                reason="It passed the gate; the schedule releases automatically.",
            )
        except (UserError, EngineError) as error:
            log.warning("auto_release_failed", adapter=adapter.name, why=str(error))


def split_watch_claimed(split_id: int) -> None:
    """Read the test of a running split and act on it; do nothing while another worker is at it.

    A failure is logged: the next tick of the scheduler tries again.
    """
    project_id = TrafficSplit.objects.values_list("project", flat=True).get(pk=split_id)
    with live_version_claimed(project_id) as claimed:
        running = TrafficSplit.objects.select_related("project", "candidate").filter(status=RUNNING)
        split = running.filter(pk=split_id).first() if claimed else None
        if split is None:
            return
        try:
            split_watch(split=split)
        except (UserError, EngineError) as error:
            log.warning("split_waits", split=split.pk, why=str(error))
