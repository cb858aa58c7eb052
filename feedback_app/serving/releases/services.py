"""Services of releases."""

import structlog
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import BASE_VERSION, NotificationKind, Project
from feedback_app.feedback.models.webhooks import Event
from feedback_app.feedback.notifications.services import notify
from feedback_app.feedback.prompts.completions import version_number
from feedback_app.feedback.prompts.services import Message
from feedback_app.feedback.webhooks.events import event_write
from feedback_app.serving.engine.client import Engine, EngineError, Sampling
from feedback_app.serving.models import Release
from feedback_app.serving.traffic_splits.assignments import RUNNING, split_after_release
from feedback_app.training.models import Adapter
from feedback_app.training.registry.services import locked_text
from feedback_app.web.errors import UserError

log = structlog.get_logger(__name__)

CANARY: list[Message] = [{"role": "user", "content": "Say hello in one short sentence."}]


class PromotionLost(UserError):
    """Another promotion came first; this one changed nothing."""


class GateNotPassed(UserError):
    """The version did not pass the gate, and nobody gave a reason to release it nevertheless."""


def gate_check(adapter: Adapter, *, reason: str = "") -> None:
    """Raise GateNotPassed unless the version passed the gate, was live, or a reason is given.

    Every way to make a version live asks this: the pages, the command, and a traffic split, which
    gives no reason.
    """
    if not (adapter.gate_won or reason.strip() or adapter.releases.exists()):
        raise GateNotPassed(
            f"{adapter.name} did not pass the gate: only a person can release it, with a reason."
        )


def release_promote(
    *, project: Project, adapter: Adapter | None, by: User | None, reason: str = ""
) -> Release:
    """Make a version live: load → canary → flip → drain and unload the old version.

    Where a base model has several engines, all of them load and answer before the flip; an engine
    that is down loads what is live before it gets requests again (replicas.py).

    `adapter=None` is the base model. Raises EngineError or UserError; then nothing changed.
    Streams in progress finish on the version they began with.
    """
    if adapter is not None and adapter.locked_at is not None:
        raise UserError(locked_text(adapter))
    if adapter is not None and adapter.discarded_at is not None:
        raise UserError(f"{adapter.name} was discarded: restore it first.")
    before = project.releases.filter(live=True).first()
    version = adapter.name if adapter else BASE_VERSION
    if project.live_version == version:
        raise UserError(f"{version} is live already.")
    if adapter is not None:
        gate_check(adapter, reason=reason)
    version_answers(project=project, adapter=adapter)
    split = project.traffic_splits.filter(status=RUNNING).select_related("candidate").first()
    release = release_flip(project=project, adapter=adapter, before=before, by=by, reason=reason)
    gone = {before.adapter.name} if before is not None and before.adapter is not None else set()
    if split is not None:  # ended by the release
        gone.add(split.candidate.name)
    for name in gone - {version}:
        try:
            Engine(project).unload(name)
        except EngineError as error:
            # it only uses memory until the engine restarts
            log.warning("unload_failed", adapter=name, why=str(error))
    return release


def version_answers(*, project: Project, adapter: Adapter | None) -> None:
    """Load a version into every engine and check the canary. Raises EngineError or UserError."""
    engine = Engine(project)
    version = adapter.name if adapter else BASE_VERSION
    if adapter is not None:
        engine.load(adapter)
    begun = engine.first_pieces(
        CANARY, version=version, sampling=Sampling(max_tokens=12, temperature=0.0, top_p=1.0)
    )
    if not all(begun):
        raise UserError(f"{version} did not answer the canary prompt: nothing was changed.")


def release_rollback(*, project: Project, by: User | None, reason: str = "") -> Release:
    """Promote the version that was live before; the base model if there was none."""
    timeline = project.releases.select_related("adapter").order_by("-pk")
    if project.live_version == BASE_VERSION:
        raise UserError("The base model is live: there is nothing to go back from.")
    earlier = [
        release
        for release in timeline.filter(live=False)
        if release.version != project.live_version
        and (release.adapter is None or release.adapter.discarded_at is None)
    ]
    adapter = earlier[0].adapter if earlier else None
    return release_promote(project=project, adapter=adapter, by=by, reason=reason)


def release_flip(
    *,
    project: Project,
    adapter: Adapter | None,
    before: Release | None,
    by: User | None,
    reason: str,
) -> Release:
    """End `before` and create the new release in one transaction.

    Raises PromotionLost if another release came first, UserError for a version discarded meanwhile.
    """
    lost = PromotionLost("Another version was released just now: look again before you release.")
    try:
        with transaction.atomic():
            # no version is discarded while it becomes live
            Project.objects.select_for_update().get(pk=project.pk)
            if adapter is not None and not Adapter.objects.usable().filter(pk=adapter.pk).exists():
                raise UserError(f"{adapter.name} was discarded: restore it first.")
            now = timezone.now()
            ended = Release.objects.filter(project=project, live=True)
            if before is not None:
                ended = ended.filter(pk=before.pk)
                if not ended.update(live=False, until=now):
                    raise lost
            release = Release.objects.create(
                project=project, adapter=adapter, released_by=by, reason=reason[:200]
            )
            Project.objects.filter(pk=project.pk).update(live_version=release.version)
            passed = adapter is None or adapter.gate_won
            audit(
                project=project,
                actor=by,
                action="release",
                target=release.version,
                reason=reason if passed else f"The gate was not passed. {reason}".strip(),
            )
            split_after_release(project=project, version=release.version, by=by, reason=reason)
            release_notify(release, before=before, by=by)
            event_write(
                project=project,
                event=Event.RELEASE_CHANGED,
                key=str(release.pk),
                data={
                    "version": release.version,
                    "before": before.version if before else BASE_VERSION,
                    "reason": reason,
                },
            )
    except IntegrityError as error:
        raise lost from error
    project.live_version = release.version
    return release


def release_notify(release: Release, *, before: Release | None, by: User | None) -> None:
    """Tell the project's admins what is live now; an earlier version than before is a step back."""
    earlier = before.version if before else BASE_VERSION
    is_back = version_number(release.version) < version_number(earlier)
    text = f"{release.version} is live instead of {earlier}. {release.reason}"
    notify(
        project=release.project,
        kind=NotificationKind.ROLLED_BACK if is_back else NotificationKind.RELEASED,
        key=str(release.pk),
        text=text.strip(),
        path=reverse("releases", args=[release.project.slug]),
        by=by,
    )
