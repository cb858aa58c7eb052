"""Events, written down for the webhooks in the transaction of what they tell."""

import json
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.utils import timezone

from feedback_app.feedback.models import ImportJob, Project, Vote
from feedback_app.feedback.models.webhooks import Event, Webhook, WebhookDelivery


def event_write(*, project: Project, event: Event, key: str, data: dict[str, Any]) -> None:
    """Writes the event down for every webhook that is told of it. Call it in the transaction of
    what happened; `key` names the event, and the same one is written once."""
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
    """Tells of a vote, where somebody wants to hear. Asks the database nothing where not."""
    if project.votes_told:
        event_write(
            project=project,
            event=Event.VOTE_CAST,
            # a vote that was sent again has not been changed, and is no event
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
    """Tells that an import has ended."""
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
