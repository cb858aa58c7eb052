"""A request that is sent again with its Idempotency-Key is answered again, not done again."""

import hashlib
from collections.abc import Callable

from django.db import transaction
from django.http import HttpResponse
from django.utils import timezone
from pydantic import BaseModel

from feedback_app.accounts.models import ApiReceipt
from feedback_app.api.auth import ApiRequest
from feedback_app.api.data.expiry import KEPT
from feedback_app.api.errors import ApiFault

HEADER = "Idempotency-Key"


def once(
    request: ApiRequest, action: Callable[[], BaseModel], *, asked: str | None = None
) -> HttpResponse:
    """Does `action` in a transaction and answers what it returns; with a key, at most once in 24 h.

    Of two with the same key at the same time the second waits for the first. What is refused
    leaves no receipt: it may be mended and sent again. `asked` tells requests apart whose body is
    too large to be looked at here.
    """
    key = request.headers.get(HEADER)
    if key is None:
        with transaction.atomic():
            return answered(action().model_dump_json())
    if not 1 <= len(key) <= 200 or not key.isprintable():
        raise ApiFault(400, f"{HEADER} has 1 to 200 printable characters.", "invalid_value")
    head = f"{request.method} {request.path}\n".encode()
    digest = hashlib.sha256(head + (request.body if asked is None else asked.encode())).hexdigest()
    with transaction.atomic():
        receipts = ApiReceipt.objects.filter(token=request.auth, key=key)
        receipts.filter(created_at__lt=timezone.now() - KEPT).delete()
        receipt, new = ApiReceipt.objects.get_or_create(
            token=request.auth, key=key, defaults={"asked": digest}
        )
        if new:
            receipt.answer = action().model_dump_json()
            receipt.save(update_fields=["answer"])
            return answered(receipt.answer)
    if receipt.asked != digest:
        raise ApiFault(
            409,
            f"This {HEADER} came with another request: every request has its own.",
            "idempotency_key_reused",
        )
    response = answered(receipt.answer)
    response["Idempotent-Replayed"] = "true"
    return response


def answered(body: str) -> HttpResponse:
    return HttpResponse(body, content_type="application/json; charset=utf-8")
