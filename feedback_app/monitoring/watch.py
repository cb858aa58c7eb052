"""Notifications about the installation: engines that do not answer, disks nearly full."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from feedback_app.feedback.models import NotificationKind, Project
from feedback_app.feedback.notifications.services import notify
from feedback_app.monitoring.readiness import engine_fault, engines

#: A run's checkpoints and the next adapter need about this much; doctor has the same limit.
LEAST_FREE_BYTES = 2 * 2**30
#: Checks in a row, a minute apart, before an engine counts as down: restarts are shorter.
CHECKS_DOWN = 2
_KEPT_SECONDS = 300


def installation_watch() -> None:
    """Notify the admins of the projects concerned, at most once a day for each reason."""
    day = f"{timezone.now():%Y-%m-%d}"
    down = list(models_down())
    active = Project.objects.filter(archived_at=None)
    with transaction.atomic():
        for project in active.filter(base_model__in=down):
            notify(
                project=project,
                kind=NotificationKind.ENGINE_DOWN,
                key=day,
                text=f"No engine of {project.base_model} answers: demo, API and sampling wait.",
                path=reverse("project-settings", args=[project.slug]),
            )
        if (free := free_bytes()) < LEAST_FREE_BYTES:
            for project in active:
                notify(
                    project=project,
                    kind=NotificationKind.DISK_LOW,
                    key=day,
                    text=f"The disk for adapters has {free / 2**30:.1f} GiB left: runs may fail.",
                    path=reverse("project-settings", args=[project.slug]),
                )


def models_down() -> Iterator[str]:
    """Yield the base models of which no engine has answered CHECKS_DOWN checks in a row."""
    for model, urls in engines().items():
        key = f"watch:engine:{model}"
        if any(_answers(url) for url in urls):
            cache.delete(key)
            continue
        failed = 1 + int(cache.get(key) or 0)
        cache.set(key, failed, _KEPT_SECONDS)
        if failed >= CHECKS_DOWN:
            yield model


def _answers(url: str) -> bool:
    try:
        return engine_fault(url) is None
    except httpx.HTTPError:
        return False


def free_bytes() -> int:
    """Return the space left on the disk of the adapters."""
    path = Path(settings.ARTIFACT_ROOT)
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
