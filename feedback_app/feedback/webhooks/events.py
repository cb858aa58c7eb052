"""Events, stored for webhooks in the transaction that they report."""

import json
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.utils import timezone

from feedback_app.feedback.models import ImportJob, Project, Vote
from feedback_app.feedback.models.webhooks import Event, Webhook, WebhookDelivery


def event_write(*, project: Project, event: Event, key: str, data: dict[str, Any]) -> None:
    """Store an event for every subscribed webhook. Call it in the event's transaction.

    `key` identifies the event; a second one with the same key is ignored.
    """
    for webhook in Webhook.objects.filter(project=project, active=True):
        if event in webhook.events:
            delivery_write(webhook, event=event, key=f"{event}:{key}", data=data, project=project)


def delivery_write(
    webhook: Webhook, *, event: str, key: str, data: dict[str, Any], project: Project
) -> None:
    body = {
        "type": event,
        "timestamp": timezone.now(),
        "project": project.slug,
        "data": data,
    }
    WebhookDelivery.objects.bulk_create(
        [
            WebhookDelivery(
                webhook=webhook,
                event=event,
                key=key,
                body=json.dumps(body, cls=DjangoJSONEncoder, ensure_ascii=False),
            )
        ],
        ignore_conflicts=True,
    )


def vote_event_write(project: Project, vote: Vote) -> None:
    """Store a vote's event if a webhook is subscribed; no query if none is."""
    if project.votes_told:
        event_write(
            project=project,
            event=Event.VOTE_CAST,
            # an unchanged vote that is sent again is no event
            key=f"{vote.pk}:{vote.updated_at.timestamp():.6f}",
            data={
                "id": vote.pk,
                "completion_id": vote.completion_id,
                "verdict": vote.verdict,
                "reasons": vote.reasons,
                "source": vote.source,
                "person": vote.user_id,
            },
        )


def import_event_write(job: ImportJob) -> None:
    """Store the event of a finished import."""
    event_write(
        project=job.project,
        event=Event.IMPORT_FINISHED,
        key=str(job.pk),
        data={
            "name": job.name,
            "status": job.status,
            "rows": job.rows,
            "imported": job.imported,
            "refused": job.refused,
            "error": job.error,
        },
    )
