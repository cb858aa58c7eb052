"""Reports of errors to a server that speaks Sentry's protocol, if SENTRY_DSN is set.

Only fields that cannot contain text of people are sent: messages of exceptions, local variables,
requests and log lines can contain conversations.
"""

from typing import Any

from django.core.exceptions import ImproperlyConfigured

from feedback_app.web import log_context

#: What is sent of an event, of one of its exceptions, and of a line of a stack trace.
EVENT = ("event_id", "timestamp", "platform", "level", "release", "environment", "transaction")
EXCEPTION = ("type", "module", "mechanism")
FRAME = ("filename", "abs_path", "function", "module", "lineno", "in_app")
MECHANISM = ("type", "handled")


def start(*, dsn: str, environment: str) -> None:
    """Start to report errors of this process. Raises ImproperlyConfigured without the extra."""
    try:
        import sentry_sdk
        from sentry_sdk.integrations.atexit import AtexitIntegration
        from sentry_sdk.integrations.celery import CeleryIntegration
        from sentry_sdk.integrations.dedupe import DedupeIntegration
        from sentry_sdk.integrations.django import DjangoIntegration
        from sentry_sdk.integrations.excepthook import ExcepthookIntegration
    except ImportError as error:
        raise ImproperlyConfigured(
            "SENTRY_DSN is set, but the extra is not installed: pip install 'prospect[sentry]'."
        ) from error
    sentry_sdk.init(
        dsn=dsn,
        environment=environment,
        send_default_pii=False,
        include_local_variables=False,
        include_source_context=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        auto_session_tracking=False,
        send_client_reports=False,
        # the others report log lines, and write headers into requests to other servers
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            DjangoIntegration(transaction_style="function_name"),
            CeleryIntegration(propagate_traces=False),
            ExcepthookIntegration(),
            DedupeIntegration(),
            AtexitIntegration(),
        ],
        before_send=allowed_event,
    )


def allowed_event(event: Any, hint: Any) -> Any:
    """Return the event with its allowed fields only; None if it is not about an exception."""
    exceptions = (event.get("exception") or {}).get("values")
    if not exceptions:
        return None
    allowed = _only(event, EVENT)
    if str(allowed.get("transaction", "")).startswith("/"):
        del allowed["transaction"]  # a path, of a request that no view has taken
    return {
        **allowed,
        "tags": {"request_id": log_context.request_id()},
        "exception": {"values": [_allowed_exception(each) for each in exceptions]},
    }


def _allowed_exception(exception: dict[str, Any]) -> dict[str, Any]:
    frames = (exception.get("stacktrace") or {}).get("frames") or []
    allowed = _only(exception, EXCEPTION)
    if allowed.get("mechanism"):
        allowed["mechanism"] = _only(allowed["mechanism"], MECHANISM)
    return {**allowed, "stacktrace": {"frames": [_only(frame, FRAME) for frame in frames]}}


def _only(given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}
