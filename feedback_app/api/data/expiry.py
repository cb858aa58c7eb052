"""How long idempotency records are kept. Separate so that a worker loads no API framework."""

import datetime as dt

from django.utils import timezone

from feedback_app.accounts.models import ApiReceipt

KEPT = dt.timedelta(hours=24)


def receipts_expire() -> None:
    """Delete receipts that are too old to be asked for."""
    ApiReceipt.objects.filter(created_at__lt=timezone.now() - KEPT).delete()
