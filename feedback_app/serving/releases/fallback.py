"""Fallback to the last good version when a version cannot be loaded."""

import structlog

from artifact_store.errors import StoreError
from feedback_app.accounts.audit import audit
from feedback_app.feedback.models import Project
from feedback_app.serving.engine.client import AdapterBroken, EngineError
from feedback_app.serving.models import TrafficSplit
from feedback_app.serving.releases.services import release_promote
from feedback_app.serving.traffic_splits.assignments import RUNNING, split_close
from feedback_app.training.models import Adapter
from feedback_app.training.registry.files import BadAdapter, adapter_fetch
from feedback_app.web.errors import UserError

log = structlog.get_logger(__name__)


def version_fallback(project: Project, *, version: str, error: AdapterBroken) -> str:
    """Return the version that answers instead of a version that no engine could load.

    Only if its files are missing or differ from their hashes: an engine without memory, or without
    access to the files, does not change what is live. The split of a broken candidate ends; a
    broken live version is replaced by the newest earlier release with good files, or the base, with
    the reason in the timeline and the audit trail. Raises `error` if there is no fallback.
    """
    project.refresh_from_db(fields=["live_version"])
    broken = project.adapters.filter(name=version).first()
    if broken is None or (why := damage(broken)) is None:
        raise error
    reason = f"{version} cannot be served: {why}."
    split = project.traffic_splits.filter(status=RUNNING, candidate=broken).first()
    if split is not None:
        split_close(project=project, status=TrafficSplit.Status.STOPPED, by=None, reason=reason)
        log.error("split_candidate_broken", adapter=version, why=why)
    if project.live_version == version:
        log.error("live_adapter_broken", adapter=version, why=why)
        last_good_release(project, reason=reason)
        project.releases.filter(live=True, released_by=None, reason=reason[:200]).update(
            fallback=True
        )
        audit(project=project, actor=None, action="release.fallback", target=version, reason=reason)
    return project.live_version


def damage(adapter: Adapter) -> str | None:
    """Return what is wrong with an adapter's files, or None."""
    try:
        adapter_fetch(adapter)
    except BadAdapter as error:
        return str(error)
    except StoreError:
        return None  # the files may be good: nothing is changed because the store is away
    return None


def last_good_release(project: Project, *, reason: str) -> None:
    """Promote the newest earlier release that can be served."""
    earlier = project.releases.filter(live=False).select_related("adapter__project")
    tried = {project.live_version}
    for release in earlier.order_by("-pk"):
        if release.version in tried or release.adapter is None:
            continue
        tried.add(release.version)
        if release.adapter.discarded_at is not None or damage(release.adapter) is not None:
            continue
        try:
            release_promote(project=project, adapter=release.adapter, by=None, reason=reason)
        except (EngineError, UserError) as fault:
            log.warning("fallback_failed", adapter=release.version, why=str(fault))
            project.refresh_from_db(fields=["live_version"])
            if project.live_version not in tried:
                return  # another process came first
            continue
        return
    release_promote(project=project, adapter=None, by=None, reason=reason)
