"""Idempotency: a request repeated with its Idempotency-Key returns the stored response."""

import hashlib
from collections.abc import Callable

from django.db import transaction
from django.http import HttpResponse
from django.utils import timezone
from pydantic import BaseModel

from feedback_app.accounts.models import ApiReceipt
from feedback_app.api.auth import ApiRequest
from feedback_app.api.data.expiry import KEPT
from feedback_app.api.errors import ApiError

HEADER = "Idempotency-Key"


def once(
    request: ApiRequest, action: Callable[[], BaseModel], *, asked: str | None = None
) -> HttpResponse:
    """Call `action` in a transaction and return its result; with a key, at most once in 24 h.

    Of two requests with the same key at the same time the second waits for the first. A rejected
    request leaves no idempotency record: it may be corrected and sent again. `asked` identifies
    requests whose body is too large to be hashed here. Raises ApiError.
    """
    key = request.headers.get(HEADER)
    if key is None:
        with transaction.atomic():
            return json_response(action().model_dump_json())
    if not 1 <= len(key) <= 200 or not key.isprintable():
        raise ApiError(400, f"{HEADER} has 1 to 200 printable characters.", "invalid_value")
    head = f"{request.method} {request.path}\n".encode()
    digest = hashlib.sha256(head + (request.body if asked is None else asked.encode())).hexdigest()
    with transaction.atomic():
        records = ApiReceipt.objects.filter(token=request.auth, key=key)
        records.filter(created_at__lt=timezone.now() - KEPT).delete()
        record, new = ApiReceipt.objects.get_or_create(
            token=request.auth, key=key, defaults={"asked": digest}
        )
        if new:
            record.answer = action().model_dump_json()
            record.save(update_fields=["answer"])
            return json_response(record.answer)
    if record.asked != digest:
        raise ApiError(
            409,
            f"This {HEADER} was used for another request: send a new key.",
            "idempotency_key_reused",
        )
    response = json_response(record.answer)
    response["Idempotent-Replayed"] = "true"
    return response


def json_response(body: str) -> HttpResponse:
    return HttpResponse(body, content_type="application/json; charset=utf-8")
