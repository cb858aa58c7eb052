"""The client's address, for the audit trail."""

from collections.abc import Callable

from allauth.account.adapter import get_adapter
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase

from feedback_app.accounts.audit import audited_from
from feedback_app.accounts.models import AuditEvent

LONGEST = AuditEvent._meta.get_field("address").max_length


def audited(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware that names the client in the audit events of a request."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        with audited_from(lambda: client_address(request)):
            return get_response(request)

    return middleware


def client_address(request: HttpRequest) -> str:
    """Return the client's address as TRUSTED_PROXY_COUNT says; empty if it is unknown."""
    try:
        # no longer than the column, whatever a proxy sends
        return str(get_adapter(request).get_client_ip(request))[:LONGEST]
    except PermissionDenied:
        return ""
