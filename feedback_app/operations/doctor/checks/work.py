"""Checks of work that should be going on."""

import datetime as dt
from collections.abc import Iterator

from django.apps import apps
from django.conf import settings
from django.utils import timezone

from feedback_app.db.claims import Claimable
from feedback_app.feedback.models import WebhookDelivery
from feedback_app.operations.doctor.findings import Problem, listed
from feedback_app.training.models import Erasure

#: A claim is taken over after one such period, if a worker is there to do it.
STALE_PERIODS = 3
#: An erasure that so many workers have begun fails each time: it has no limit of its own.
ERASURE_CLAIMS = 5
WEBHOOKS_LATE = dt.timedelta(minutes=30)


def stale_claims() -> Iterator[Problem]:
    limit = dt.timedelta(seconds=STALE_PERIODS * settings.RUN_STALE_SECONDS)
    for model in apps.get_models():
        if issubclass(model, Claimable):
            old = model._default_manager.filter(
                model.working(), heartbeat_at__lt=timezone.now() - limit
            )
            if found := list(old.order_by("pk").values_list("pk", flat=True)):
                yield Problem(
                    f"Abandoned for more than {limit.total_seconds():.0f} s: "
                    f"{model._meta.verbose_name} {listed(found)}. Its worker died, and no other "
                    "one took it over.",
                    "Check that workers and beat run; then it continues automatically.",
                )
    stuck = Erasure.objects.filter(finished_at=None, attempt__gte=ERASURE_CLAIMS).order_by("pk")
    if found := [f"{row} of project {row.project.slug}" for row in stuck.select_related("project")]:
        yield Problem(
            f"Begun {ERASURE_CLAIMS} times or more, and not finished: {listed(found)}. Runs of "
            "these projects wait for it.",
            "Look for its number and the error in the log of the workers of the queue default.",
        )


def webhooks_late() -> Iterator[Problem]:
    late = WebhookDelivery.objects.due().filter(next_at__lt=timezone.now() - WEBHOOKS_LATE)
    if count := late.count():
        yield Problem(
            f"{count} webhook deliveries are more than half an hour late.",
            "Check the worker of the queue default.",
        )
