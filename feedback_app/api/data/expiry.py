"""Expiry of idempotency records. A module of its own so that workers load no API framework."""

import datetime as dt

from django.utils import timezone

from feedback_app.accounts.models import ApiReceipt

KEPT = dt.timedelta(hours=24)


def idempotency_records_expire() -> None:
    """Delete idempotency records that have expired."""
    ApiReceipt.objects.filter(created_at__lt=timezone.now() - KEPT).delete()
