"""Who may read metrics, and why a part is not ready."""

import ipaddress

from django.conf import settings
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare


def is_operator(request: HttpRequest) -> bool:
    """Return whether the request has METRICS_TOKEN, or comes from this machine in local mode."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if settings.METRICS_TOKEN and scheme.lower() == "bearer":
        return constant_time_compare(token.strip(), settings.METRICS_TOKEN)
    return settings.MODE == "local" and _is_from_this_machine(request)


def _is_from_this_machine(request: HttpRequest) -> bool:
    # a proxy or tunnel on this machine connects from loopback for anybody
    if "X-Forwarded-For" in request.headers or "Forwarded" in request.headers:
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False
